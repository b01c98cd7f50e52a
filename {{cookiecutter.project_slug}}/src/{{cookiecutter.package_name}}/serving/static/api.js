// Calls of the API, with the key that a person entered if the server wants one.
import { get } from "./dom.js";

const KEY = "api-key";

export function forgetKey() {
  sessionStorage.removeItem(KEY);
  location.reload();
}

/** Ask the person for an API key; it is kept in this tab only. Rejects if they close the dialog. */
function askForKey(refused) {
  const dialog = get("key");
  if (refused) get("key-problem").textContent = "The server refused this key. Is it complete?";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve, reject) => {
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, get("key-value").value.trim());
      get("key-value").value = "";
      dialog.close("entered");
    };
    dialog.onclose = () =>
      dialog.returnValue
        ? resolve()
        : reject(new Error("This server needs an API key. Reload to enter it."));
  });
}

/** Call the API; returns { answer, headers, milliseconds }. Throws an Error fit to be shown. */
export async function call(path, body, headers = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const sent = { ...headers, ...(key && { "x-api-key": key }) };
    const content = body && { method: "POST", body: JSON.stringify(body) };
    if (body) sent["content-type"] = "application/json";
    const started = performance.now();
    const response = await fetch(path, { ...content, headers: sent, cache: "no-store" }).catch(
      () => {
        throw new Error("The server does not answer.");
      },
    );
    const answer = await response.json().catch(() => {
      throw new Error(
        `Status ${response.status}: not an answer of this API. Is a proxy in between?`,
      );
    });
    const milliseconds = performance.now() - started;
    get("forget").hidden = !key;
    if (response.ok) return { answer, headers: response.headers, milliseconds };
    if (response.status !== 401) {
      const { loc, msg } = answer.detail?.[0] ?? { loc: [], msg: "refused" };
      const place = loc.slice(1).join(".");
      const error = new Error(`${place && `${place}: `}${msg} (status ${response.status})`);
      throw Object.assign(error, { status: response.status });
    }
    await askForKey(key);
  }
}
