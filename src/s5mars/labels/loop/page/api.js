// Requests to the server. The token stands behind the # of the address, which browsers send nowhere.

const token = location.hash.slice(1);

export const me = Array.from(crypto.getRandomValues(new Uint8Array(6)), (b) => (b % 36).toString(36)).join("");

export class Refused extends Error {
  constructor(status, answer) {
    super(answer.error || `the server answered ${status}`);
    this.status = status;
    this.conflict = Boolean(answer.conflict);
  }
}

async function request(path, options = {}) {
  const headers = { Authorization: `Bearer ${token}`, ...options.headers };
  const response = await fetch(path, { ...options, headers, cache: "no-store" });
  if (!response.ok) {
    throw new Refused(response.status, await response.json().catch(() => ({})));
  }
  return response;
}

function address(path, query) {
  return `api/${path}?${new URLSearchParams(query)}`;
}

export async function get(path, query = {}) {
  return (await request(address(path, query))).json();
}

export async function post(path, body) {
  const response = await request(`api/${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, by: me }),
  });
  return response.json();
}

// Bytes with the headers that describe them; null where the server is not ready yet.
export async function bytes(path, query) {
  const response = await request(address(path, query));
  if (response.status === 202) return null;
  return { headers: response.headers, buffer: await response.arrayBuffer() };
}

export async function picture(path, query) {
  const response = await request(address(path, query));
  return response.status === 202 ? null : response.blob();
}
