import { addRoast, latestRoasts } from './api.js';

const form = document.querySelector('#roast-form');
const notice = document.querySelector('#notice');
const list = document.querySelector('#roasts');
const time = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });

function element(name, className, text) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function card(roast) {
  const item = element('li', 'roast');
  item.append(
    element('h3', '', roast.target),
    element('p', 'body', roast.body),
    element('p', 'signed', `${roast.author}, ${time.format(new Date(roast.createdAt))}`),
  );
  return item;
}

function tell(text, failed = false) {
  notice.textContent = text;
  notice.classList.toggle('failed', failed);
}

async function refresh() {
  const roasts = await latestRoasts();
  list.replaceChildren(...roasts.map(card));
  if (roasts.length === 0) list.append(element('li', 'empty', 'Nobody has been roasted yet. Be the first.'));
}

form.addEventListener('submit', async (event) => {
  event.preventDefault();
  const button = form.querySelector('button');
  button.disabled = true;
  try {
    const roast = await addRoast(Object.fromEntries(new FormData(form)));
    form.reset();
    tell(`${roast.target} is well done.`);
    await refresh();
  } catch (error) {
    tell(error.message, true);
  } finally {
    button.disabled = false;
  }
});

refresh().catch((error) => tell(error.message, true));
