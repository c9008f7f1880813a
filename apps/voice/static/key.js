/** The API key, for as long as the tab is open. The tab's storage may be refused; the key is then forgotten with the page. */

const NAME = "penstock-voice:key";

/** Keep `value`, if there is one, and return what is kept. */
export function storedKey(value) {
  try {
    if (value !== undefined) sessionStorage.setItem(NAME, value);
    return sessionStorage.getItem(NAME) ?? "";
  } catch {
    return value ?? "";
  }
}
