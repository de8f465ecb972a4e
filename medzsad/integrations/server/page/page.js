// The page: from dropped files to a list of results, the highest score first, and a report to look through.

import { chosenFiles, droppedFiles, groupScans } from "./scans.js";
import { Rows } from "./rows.js";
import * as server from "./server.js";

const OPTIONS = ["model", "plane", "modality", "window", "roi", "threshold", "normals"];
const LABEL_LETTERS = 200;
const AGAIN_S = 3; // after which a full or silent server is asked again
const $ = (id) => document.getElementById(id);
const wait = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

const rows = new Rows($("results"), { open: openReport, download: downloadRow, remove: removeRow });
const waiting = []; // rows whose scan is still to be sent
let sending = false, following = false, opening = false, offered = [];

start();

async function start() {
  try {
    const about = await server.about();
    offered = await server.models();
    $("version").textContent = about.version;
    $("keep").textContent = `${about.limits.keep_minutes} minutes after they are done`;
    fillModels();
    fillNormals(about.normals || []);
    for (const known of (await server.predictions()).reverse()) rows.add({ label: "scan", ...known });
    show("work");
    refresh();
    followNext();
  } catch (error) {
    if (error.status === 401) askForToken();
    else trouble(error.message);
  }
}

function show(name) {
  for (const id of ["login", "work"]) $(id).hidden = id !== name;
}

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

function say(text) {
  $("said").textContent = text;
}

// --- Sign in

function askForToken(message = "") {
  show("login");
  $("login-error").textContent = message;
  $("token").value = "";
  $("token").focus();
}

$("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = $("token").value.trim();
  if (!/^[!-~]+$/.test(token)) return askForToken("A token has ASCII letters without blanks.");
  server.signIn(token);
  try {
    await server.about();
  } catch (error) {
    server.signOut();
    return askForToken(error.status === 401 ? "That is not the token of this server." : error.message);
  }
  $("token").value = "";
  return start();
});

// --- Options

function fillModels() {
  $("model").replaceChildren(...offered.map((model) => new Option(model.name, model.name)));
  $("models").replaceChildren(...offered.flatMap((model) => {
    const name = document.createElement("dt"), text = document.createElement("dd");
    name.textContent = model.name;
    text.textContent = `For ${model.for}. ${model.about}.`;
    return [name, text];
  }));
  showUse();
}

function showUse() {
  const model = offered.find((one) => one.name === $("model").value);
  $("model-use").textContent = model ? `For ${model.for}.` : "";
}

function fillNormals(names) {
  for (const name of names) $("normals").append(new Option(name, name));
  for (const part of document.querySelectorAll(".of-normals")) part.hidden = !names.length;
}

function chosenOptions(scan) {
  const options = { label: scan.label.slice(-LABEL_LETTERS), report: true };
  for (const name of OPTIONS) if ($(name).value.trim()) options[name] = $(name).value.trim();
  if ($("dicom").checked && scan.dicom) options.dicom = "all";
  return options;
}

$("model").addEventListener("change", showUse);
$("options").addEventListener("submit", (event) => event.preventDefault());

// --- Scans in

$("choose-files").addEventListener("click", () => $("files").click());
$("choose-folder").addEventListener("click", () => $("folder").click());
for (const id of ["files", "folder"]) {
  $(id).addEventListener("change", () => {
    take(chosenFiles($(id).files));
    $(id).value = "";
  });
}
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").classList.remove("over");
});
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  if ($("work").hidden) return;
  try {
    await take(await droppedFiles(event.dataTransfer));
  } catch (error) {
    trouble(`The dropped files cannot be read (${error.message}).`);
  }
});

async function take(found) {
  trouble("");
  const { scans, others } = await groupScans(found);
  const some = others.slice(0, 3).join(", ") + (others.length > 3 ? ", ..." : "");
  $("left-out").hidden = !others.length;
  $("left-out").textContent = `Left out, for ${others.length > 1 ? "they are no scans" : "it is no scan"}: ${some}`;
  for (const scan of scans) {
    const options = chosenOptions(scan); // as they are now, whenever it is sent
    waiting.push({ row: rows.add({ label: scan.label, status: "waiting", model: options.model }), scan, options });
  }
  say(`${scans.length} scan${scans.length === 1 ? "" : "s"} added.`);
  refresh();
  sendAll();
}

async function sendAll() {
  if (sending) return;
  sending = true;
  while (waiting.length) {
    const { row, scan, options } = waiting.shift();
    if (!row.gone) await send(row, scan, options);
  }
  sending = false;
}

async function send(row, scan, options) {
  for (;;) {
    try {
      rows.update(row, { status: "sending", sent: 0 });
      const id = await server.upload(scan, options, (sent) => rows.update(row, { sent }));
      if (row.gone) {
        await server.remove(id);
        return;
      }
      rows.update(row, { id, status: "queued" });
      followNext();
      return;
    } catch (error) {
      if (row.gone) return;
      if (error.status === 401) return signedOut();
      if (error.status !== 429) {
        ended(row, { status: "failed", error: error.message });
        return;
      }
      rows.update(row, { status: "waiting" });
      await wait(error.retryAfter || AGAIN_S);
      if (row.gone) return;
    }
  }
}

// --- How far it is: the server does one scan after another, so one stream of events is enough

async function followNext() {
  if (following) return;
  following = true;
  for (let row; (row = rows.active());) {
    try {
      await server.follow(row.id, (name, data) => {
        if (name === "progress") rows.update(row, { status: data.phase === "waiting" ? "queued" : "running", progress: data });
        else ended(row, data);
      });
      if (!row.gone && !row.isOver) ended(row, await server.prediction(row.id));
    } catch (error) {
      if (row.gone) continue;
      if (error.status === 401) break;
      if (error.status === 404) ended(row, { status: "failed", error: "The server has deleted it." });
      else {
        trouble(error.message || "The server does not answer. Is it still running?");
        await wait(AGAIN_S);
      }
    }
  }
  following = false;
}

function ended(row, data) {
  trouble("");
  rows.update(row, data);
  if (row.status === "done") say(`${row.label}: score ${row.score.toFixed(3)}, ${row.candidates} candidates.`);
  if (row.status === "failed") say(`${row.label} failed: ${row.error}`);
  refresh();
}

function signedOut() {
  server.signOut();
  askForToken("The server asks for its token again.");
}

function refresh() {
  const { done, failed, open } = rows.counts(), total = done + failed + open;
  rows.order();
  $("empty").hidden = total > 0;
  $("results").hidden = $("meaning").hidden = total === 0;
  $("delete-all").hidden = total < 2;
  const parts = [[done, "done"], [failed, "failed"], [open, "to do"]].filter(([count]) => count);
  $("summary").textContent = parts.map(([count, word]) => `${count} ${word}`).join(", ");
}

// --- Results

async function openReport(row) {
  if (opening) return; // a double click opens it once
  opening = true;
  try {
    const report = row.results.find((result) => result.media_type === "text/html");
    const [page, zip] = await Promise.all([server.address(row.id, report.name), server.address(row.id, "results.zip")]);
    $("viewer-title").textContent = row.label;
    $("viewer-tab").href = page;
    $("viewer-download").href = zip;
    $("viewer-download").download = `${fileName(row.label)}.zip`;
    const frame = document.createElement("iframe"); // made anew, so that a closed report needs no memory
    frame.title = `Report of ${row.label}`;
    frame.src = page;
    $("viewer").append(frame);
    $("viewer").showModal();
  } catch (error) {
    complain(row, error);
  } finally {
    opening = false;
  }
}

$("viewer-close").addEventListener("click", () => $("viewer").close());
$("viewer").addEventListener("close", () => $("viewer").querySelector("iframe").remove());

async function downloadRow(row) {
  try {
    const link = document.createElement("a");
    link.href = await server.address(row.id, "results.zip");
    link.download = `${fileName(row.label)}.zip`;
    link.click();
  } catch (error) {
    complain(row, error);
  }
}

function fileName(label) {
  return `${label.replace(/[^\p{L}\p{N}._-]+/gu, "_") || "scan"}_medzsad`;
}

async function removeRow(row) {
  try {
    row.gone = true;
    if (row.id) await server.remove(row.id);
    rows.drop(row, $("results-title"));
    say(`${row.label} deleted.`);
  } catch (error) {
    row.gone = false;
    complain(row, error);
  }
  refresh();
}

$("delete-all").addEventListener("click", async () => {
  if (!confirm("Delete all results on the server, and what still waits?")) return;
  for (const row of rows.all()) await removeRow(row);
  $("results-title").focus();
});

function complain(row, error) {
  if (error.status === 401) signedOut();
  else if (error.status === 404) ended(row, { status: "failed", error: "The server has deleted it." });
  else trouble(error.message);
}
