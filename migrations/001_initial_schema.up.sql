CREATE TABLE roasts (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  target text NOT NULL CHECK (char_length(target) BETWEEN 1 AND 80),
  body text NOT NULL CHECK (char_length(body) BETWEEN 1 AND 500),
  author text NOT NULL DEFAULT 'anonymous' CHECK (char_length(author) BETWEEN 1 AND 80),
  created_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE roasts IS 'One row for each roast, newest shown first.';

-- The list of the latest roasts reads along this index.
CREATE INDEX roasts_latest ON roasts (created_at DESC, id DESC);
