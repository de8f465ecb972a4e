// What the page asks of the server: /v1 with its token, uploads that tell how far they are, events.

const KEY = "medzsad-token";

/** An answer that is no success; `status` is 0 where the server cannot be reached. */
export class Refused extends Error {
  constructor(status, detail, retryAfter = 0) {
    super(detail);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export const signIn = (token) => sessionStorage.setItem(KEY, token);
export const signOut = () => sessionStorage.removeItem(KEY);

function headers() {
  const token = sessionStorage.getItem(KEY);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: headers(), cache: "no-store" });
  } catch {
    throw new Refused(0, "The server does not answer. Is it still running?");
  }
  if (!answer.ok) throw new Refused(answer.status, await detail(answer), Number(answer.headers.get("Retry-After")));
  return answer;
}

async function detail(answer) {
  try {
    return (await answer.json()).detail || answer.statusText;
  } catch {
    return answer.statusText || `The server answers ${answer.status}.`;
  }
}

export const about = async () => (await ask("/v1")).json();
export const models = async () => (await ask("/v1/models")).json();
export const predictions = async () => (await ask("/v1/predictions")).json();
export const prediction = async (id) => (await ask(`/v1/predictions/${id}`)).json();

/** Delete a prediction; one that is gone already is no error. */
export async function remove(id) {
  try {
    await ask(`/v1/predictions/${id}`, { method: "DELETE" });
  } catch (error) {
    if (error.status !== 404) throw error;
  }
}

/** Return an address that opens a result without the token: a ticket in it is good for some minutes. */
export async function address(id, name) {
  const { ticket } = await (await ask(`/v1/predictions/${id}/ticket`)).json();
  const path = `/v1/predictions/${id}/${name === "results.zip" ? name : `results/${encodeURI(name)}`}`;
  return ticket ? `${path}?ticket=${ticket}` : path;
}

/** Send a scan; `watch` gets the part that is sent, 0 to 1. Return the new prediction's id. */
export function upload(scan, options, watch) {
  const form = new FormData();
  form.append("options", JSON.stringify(options));
  for (const { file, path } of scan.files) form.append("files", file, path);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/v1/predictions");
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && watch(event.loaded / event.total);
    request.onerror = () => reject(new Refused(0, "The upload broke off. Is the server still running?"));
    request.onload = () => {
      if (request.status === 202) return resolve(request.response.id);
      const reason = request.response?.detail || `The server answers ${request.status}.`;
      return reject(new Refused(request.status, reason, Number(request.getResponseHeader("Retry-After"))));
    };
    request.send(form);
  });
}

/** Call `watch` with (name, data) of each event of a prediction, until it is over. */
export async function follow(id, watch) {
  const reader = (await ask(`/v1/predictions/${id}/events`)).body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (text + value).split("\n\n");
    text = events.pop();
    for (const event of events) {
      const fields = Object.fromEntries(event.split("\n").map((line) => line.split(/: (.*)/s, 2)));
      if (fields.event) watch(fields.event, JSON.parse(fields.data));
    }
  }
}
