DROP TABLE roasts;
