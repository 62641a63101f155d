async function call(path, options) {
  const response = await fetch(path, options);
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error || `The kitchen answered ${response.status}.`);
  return answer;
}

export async function latestRoasts() {
  return (await call('/api/roasts')).roasts;
}

export async function addRoast(roast) {
  return (await call('/api/roasts', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(roast),
  })).roast;
}
