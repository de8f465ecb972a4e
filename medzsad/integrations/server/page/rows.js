// The list of scans: a table row each, sorted, changed in place so that the keyboard's focus stays.

const OVER = ["done", "failed", "cancelled"];

export class Rows {
  /** `actions` has `open`, `download` and `remove`, which get the row whose button was pressed. */
  constructor(table, actions) {
    this.body = table.tBodies[0];
    this.actions = actions;
    this.rows = [];
    this.key = "score";
    this.sign = -1;
    this.heads = [...table.querySelectorAll("th button")];
    for (const head of this.heads) head.addEventListener("click", () => this.sortBy(head));
  }

  all() {
    return [...this.rows];
  }

  add(fields) {
    const line = document.getElementById("row").content.firstElementChild.cloneNode(true);
    const row = { line, number: this.rows.length };
    line.querySelector(".open").addEventListener("click", () => this.actions.open(row));
    line.querySelector(".download").addEventListener("click", () => this.actions.download(row));
    line.querySelector(".delete").addEventListener("click", () => this.actions.remove(row));
    this.rows.push(row);
    this.body.append(line);
    this.update(row, fields);
    return row;
  }

  update(row, fields) {
    Object.assign(row, fields);
    row.label ||= "scan";
    row.isOver = OVER.includes(row.status);
    const { line } = row, part = (selector) => line.querySelector(selector);
    line.dataset.status = row.status;
    part(".label").textContent = row.label;
    part(".state").textContent = stateOf(row);
    const done = row.status === "done", progress = part("progress");
    progress.hidden = row.status !== "sending" && row.status !== "running";
    progress.setAttribute("aria-label", `Progress of ${row.label}`);
    const far = row.status === "sending" ? row.sent : row.progress?.done / row.progress?.total;
    if (far >= 0 && far < 1) progress.value = far;
    else progress.removeAttribute("value"); // the server examines it, or reads and writes
    part("th").colSpan = done ? 1 : 3; // its state has the place of the figures
    for (const cell of line.querySelectorAll(".score, .candidates")) cell.hidden = !done;
    part(".score .value").textContent = done ? row.score.toFixed(3) : "";
    part(".score .bar span").style.width = `${100 * (row.score || 0)}%`;
    part(".candidates .value").textContent = done ? row.candidates : "";
    part(".model").textContent = row.model || "";
    const open = part(".open"), download = part(".download"), remove = part(".delete");
    open.hidden = !(done && row.results.some((result) => result.media_type === "text/html"));
    download.hidden = !done;
    remove.textContent = row.isOver ? "Delete" : "Cancel";
    open.setAttribute("aria-label", `Open ${row.label}`);
    download.setAttribute("aria-label", `Download ${row.label}`);
    remove.setAttribute("aria-label", `${remove.textContent} ${row.label}`);
  }

  /** Take a row away; the focus goes to its neighbour's button, or to `last`. */
  drop(row, last) {
    const next = row.line.nextElementSibling || row.line.previousElementSibling;
    const held = row.line.contains(document.activeElement);
    this.rows = this.rows.filter((one) => one !== row);
    row.line.remove();
    if (held) (next?.querySelector(".delete") || last).focus();
  }

  /** Return the scan that the server does, or will do next. */
  active() {
    const open = this.rows.filter((row) => row.id && !row.isOver && !row.gone);
    return open.find((row) => row.status === "running") || open[0];
  }

  counts() {
    const count = (test) => this.rows.filter(test).length;
    return {
      done: count((row) => row.status === "done"),
      failed: count((row) => row.isOver && row.status !== "done"),
      open: count((row) => !row.isOver),
    };
  }

  sortBy(head) {
    const first = head.dataset.key === "label" ? 1 : -1;
    this.sign = this.key === head.dataset.key ? -this.sign : first;
    this.key = head.dataset.key;
    for (const one of this.heads) one.parentElement.removeAttribute("aria-sort");
    head.parentElement.setAttribute("aria-sort", this.sign > 0 ? "ascending" : "descending");
    this.order();
  }

  /** Put the lines in order: what is at work, then what is done, then what failed. */
  order() {
    const place = (row) => (row.isOver ? (row.status === "done" ? 1 : 2) : 0);
    const compare = (a, b) => {
      if (place(a) !== place(b) || place(a) === 0) return place(a) - place(b) || a.number - b.number;
      const one = a[this.key] ?? "", two = b[this.key] ?? "";
      const order = this.key === "label" ? one.localeCompare(two, undefined, { numeric: true }) : one - two;
      return this.sign * order || a.number - b.number;
    };
    const lines = [...this.rows].sort(compare).map((row) => row.line);
    if (lines.every((line, index) => this.body.rows[index] === line)) return;
    const held = this.body.contains(document.activeElement) ? document.activeElement : null;
    this.body.replaceChildren(...lines);
    held?.focus();
  }
}

function stateOf(row) {
  const { status, progress } = row;
  if (status === "sending" && row.sent >= 1) return "the server examines it";
  if (status === "sending") return `sending, ${Math.round(100 * (row.sent || 0))} %`;
  if (status === "running" && progress?.total) return `${progress.phase}, slice ${progress.done} of ${progress.total}`;
  if (status === "running") return progress?.phase || "starting";
  if (status === "failed") return row.error;
  return { waiting: "waits to be sent", queued: "waits for its turn", cancelled: "cancelled" }[status] || "";
}
