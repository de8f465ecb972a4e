// Which of the files that somebody drops belong to one scan: a volume or an image is one, and so are the DICOM
// files of a folder, and the two files of a header and its voxels.

const ALONE = /\.(nii|nii\.gz|nrrd|mha|mgz|mgh|zip|png|jpe?g|tiff?|bmp)$/i;
const PAIR = /\.(hdr|img)(\.gz)?$/i;
const DETACHED = /\.(nhdr|mhd)$/i; // sent, for the server says why it is not taken
const DICOM = /\.(dcm|dicom|ima)$/i;
const ENDING = /\.(nii|nii\.gz|hdr|img|hdr\.gz|img\.gz|nrrd|mha|mgz|mgh|zip|png|jpe?g|tiff?|bmp|dcm|dicom|ima)$/i;

/** Return all files of a drop, as {file, path}; folders are searched. */
export async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return chosenFiles(transfer.files);
  const found = [];
  for (const entry of entries) await collect(entry, found);
  return found;
}

/** Return the files of an input element, as {file, path}. */
export function chosenFiles(files) {
  return [...files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
}

async function collect(entry, found) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    found.push({ file, path: entry.fullPath.replace(/^\//, "") });
    return;
  }
  const reader = entry.createReader();
  for (;;) { // it gives at most a hundred at a time
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return;
    for (const each of some) await collect(each, found);
  }
}

/** Return {scans: [{label, files, dicom}], others: [path]}: what belongs together, and what is no scan. */
export async function groupScans(found) {
  const groups = new Map(), others = [];
  const add = (key, label, one, dicom = false) => {
    if (!groups.has(key)) groups.set(key, { label, files: [], dicom });
    groups.get(key).files.push(one);
  };
  for (const one of found) {
    const name = one.path.split("/").pop(), folder = one.path.slice(0, -name.length - 1);
    if (one.path.split("/").some((part) => part.startsWith("."))) continue;
    if (ALONE.test(name) || DETACHED.test(name)) add(`file ${one.path}`, one.path.replace(ENDING, ""), one);
    else if (PAIR.test(name)) add(`pair ${one.path.replace(PAIR, "")}`, one.path.replace(PAIR, ""), one);
    else if (name === "DICOMDIR") continue;
    else if (DICOM.test(name) || await isDicom(one.file)) {
      add(`dicom ${folder}`, folder || name.replace(ENDING, ""), one, true);
    } else others.push(one.path);
  }
  const scans = [...groups.values()];
  const tops = new Set(scans.map((scan) => scan.files[0].path.split("/")[0]));
  if (scans.length > 1 && tops.size === 1) { // the one folder that all lie in tells nothing
    const top = `${[...tops][0]}/`;
    for (const scan of scans) if (scan.label.startsWith(top)) scan.label = scan.label.slice(top.length);
  }
  return { scans, others };
}

async function isDicom(file) {
  try {
    return (await file.slice(128, 132).text()) === "DICM";
  } catch {
    return false;
  }
}
