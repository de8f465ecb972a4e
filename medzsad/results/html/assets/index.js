"use strict";
// A click on a column's head sorts the scans by it; those without a value stay last.
const NUMBERS = { score: 1, lesions: 1, largest: 1 };
const body = document.querySelector("tbody");
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, key = button.dataset.key;
    const first = key === "name" || key === "modality" || key === "model" ? "ascending" : "descending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    for (const each of document.querySelectorAll("th[aria-sort]")) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const compare = (a, b) => {
      const one = a.dataset[key] ?? "", two = b.dataset[key] ?? "";
      if (!one || !two) return Number(!one) - Number(!two);
      return sign * (key in NUMBERS ? one - two : one.localeCompare(two, undefined, { numeric: true }));
    };
    body.append(...[...body.rows].sort(compare));
  });
}
