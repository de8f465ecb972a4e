"use strict";
(async () => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const all = (selector) => [...document.querySelectorAll(selector)];
  // What is marked has an alpha of 1, and that of all else stays under EDGE: the shader, which sees colours alone,
  // finds the border where alpha crosses EDGE.
  const EDGE = 0.8, FAINTEST = 0.04, STRONGEST = 0.7, ALPHA_POWER = 1.1;
  const OUTLINE = [0, 229, 255];

  const say = (text) => { byId("trouble").textContent = text; byId("trouble").hidden = false; };

  const multiply = (matrix, [x, y, z]) =>
    matrix.slice(0, 3).map((row) => row[0] * x + row[1] * y + row[2] * z + row[3]);
  const toMm = (voxel) => multiply(data.affine, voxel);
  const toVoxel = (mm) =>
    multiply(data.inverse, mm).map((v, axis) => Math.min(Math.max(Math.round(v), 0), data.shape[axis] - 1));

  // NiiVue makes overlays opaque wherever their colour is not fully transparent, and outlines opaque ones in
  // black. Here the opacity grows with the map, and black would not show on a dark scan. In 3D, faint parts
  // would add up along the line of sight to a fog: there only what is marked is shown.
  const SHADER_CHANGES = [
    ["FragColor.a = step(0.00001, FragColor.a);", ""],
    ["float val = texture(overlay, samplePos.xyz).a;",
      `float val = texture(overlay, samplePos.xyz).a; val = val < ${EDGE} ? 0.0 : val;`],
    ["vec4 colorSample = texture(overlay, samplePos.xyz);",
      `vec4 colorSample = texture(overlay, samplePos.xyz); if (colorSample.a < ${EDGE}) colorSample.a = 0.0;`],
    ["ocolor.a < 1.0", `ocolor.a < ${EDGE}`],
    ["if (a >= 1.0)", `if (a >= ${EDGE})`],
    ["ocolor = vec4(0.0, 0.0, 0.0, 1.0)",
      `ocolor = vec4(${OUTLINE.map((level) => (level / 255).toFixed(3)).join(", ")}, 1.0)`],
  ];
  const shaderSource = WebGL2RenderingContext.prototype.shaderSource;
  WebGL2RenderingContext.prototype.shaderSource = function (shader, text) {
    for (const [from, to] of SHADER_CHANGES) text = text.replaceAll(from, to);
    return shaderSource.call(this, shader, text);
  };

  const nv = new niivue.Niivue({
    backColor: [0, 0, 0, 1],
    crosshairColor: [1, 0.75, 0.31, 0.8],
    // Percent of a tile; on small screens still about a pixel.
    crosshairWidth: Math.max(0.35, 260 / Math.max(1, byId("view").clientWidth)),
    crosshairWidthUnit: "percent",
    crosshairGap: 16,
    fontColor: [1, 0.75, 0.31, 1],
    fontMinPx: 13,
    isRadiologicalConvention: true,
    sagittalNoseLeft: true,
    show3Dcrosshair: true,
    isColorbar: false,
    isOrientationTextVisible: data.has_geometry,
    showAllOrientationMarkers: true,
    dragAndDropEnabled: false,
    logLevel: "error",
    multiplanarShowRender: niivue.SHOW_RENDER.ALWAYS,
    multiplanarPadPixels: 16,
  });

  const threshold = byId("threshold"), opacity = byId("opacity"), colormap = byId("colormap");
  const rest = byId("rest"), outline = byId("outline");

  // The value of the slider snaps to its steps; until it is moved, the report's own value holds.
  let cut = data.threshold;

  // At the report's own threshold its mask is marked, which may hold less than what reaches the threshold: candidates
  // can be hidden, or cut down to their core. At others, all that reaches them is.
  const isOwn = () => Math.abs(cut - data.threshold) < 1e-6;
  const isAbove = (level) => level > 0 && level >= Math.floor(cut * 255);
  const restAlpha = (level) => {
    if (level === 0 || !rest.checked) return 0;
    const alpha = (level / 255) ** ALPHA_POWER;
    return Math.min(STRONGEST, alpha < FAINTEST ? 0 : alpha);
  };
  const alphaOf = (level) => isAbove(level) ? 1 : restAlpha(level);
  const markedAlpha = (level) => level > 0 ? 1 : 0;

  function colours(alpha) {
    const [R, G, B] = data.colormaps[colormap.value];
    const I = R.map((_, level) => level);
    return { R, G, B, A: I.map((level) => Math.round(255 * alpha(level))), I };
  }

  function paintLegend() {
    const context = byId("legend").getContext("2d");
    const [R, G, B] = data.colormaps[colormap.value];
    for (let level = 0; level < 256; level++) {
      context.fillStyle = "#4d4d4d";
      context.fillRect(level, 0, 1, 12);
      context.fillStyle = `rgba(${R[level]}, ${G[level]}, ${B[level]}, ${alphaOf(level) * opacity.value})`;
      context.fillRect(level, 0, 1, 12);
    }
    context.fillStyle = `rgb(${OUTLINE})`;
    context.fillRect(Math.min(254, Math.round(cut * 255)) - 1, 0, 2, 12);
  }

  function paintTexts() {
    byId("threshold-value").textContent = cut.toFixed(3);
    byId("opacity-value").textContent = `${Math.round(opacity.value * 100)} %`;
    // Of other thresholds, the volume is known to a step of the map that the page holds.
    const voxels = isOwn() ? data.mask_voxels : data.counts_above[Math.max(1, Math.floor(cut * 255))] ?? 0;
    const amount = data.voxel_ml === null ? `${voxels} pixels` : `${(voxels * data.voxel_ml).toFixed(2)} mL`;
    byId("above").textContent = `${amount} marked` + (isOwn()
      ? "; this is the report's threshold"
      : `: all that reaches this value; the report's: ${data.threshold.toFixed(3)}`);
  }

  // In voxels, so that the line is about one and a half pixels wide.
  function outlineWidth() {
    if (!outline.checked) return 0;
    const tiles = nv.opts.sliceType === niivue.SLICE_TYPE.MULTIPLANAR ? 2 : 1;
    const view = byId("view");
    const pixels = Math.min(view.clientWidth, view.clientHeight) / tiles / Math.max(...data.viewer_shape);
    return Math.min(1, Math.max(0.2, 1.5 / Math.max(pixels, 0.01)));
  }

  // One bar for all planes: they are drawn at one scale. None in 3D, where the scale depends on depth.
  const SCALE_BARS = [1, 2, 5, 10, 20, 50, 100, 200];
  function paintScaleBar() {
    const flat = nv.screenSlices.find((tile) => tile.axCorSag !== niivue.SLICE_TYPE.RENDER);
    const bar = byId("scale-bar");
    bar.hidden = !flat || !data.has_geometry;
    if (bar.hidden) return;
    const perMm = flat.leftTopWidthHeight[2] / Math.abs(flat.fovMM[0]) / (nv.gl.canvas.width / byId("view").clientWidth);
    const fitting = SCALE_BARS.filter((mm) => mm * perMm <= 160);
    const mm = fitting.length ? fitting[fitting.length - 1] : SCALE_BARS[0];
    bar.style.width = `${mm * perMm}px`;
    bar.textContent = mm < 10 ? `${mm} mm` : `${mm / 10} cm`;
  }

  let mask;  // a volume over the map, with the map's values where it marks them: so it has the same colours
  function style() {
    nv.overlayAlphaShader = Number(opacity.value);
    nv.overlayOutlineWidth = outlineWidth();
    nv.addColormap("map", colours(isOwn() ? restAlpha : alphaOf));
    nv.addColormap("mask", colours(markedAlpha));
    mask.opacity = isOwn() ? 1 : 0;
  }

  let scheduled = false;
  function refresh() {
    paintTexts();
    paintLegend();
    if (scheduled || nv.volumes.length < 3) return;
    scheduled = true;
    requestAnimationFrame(() => {
      scheduled = false;
      style();
      for (const layer of [1, 2]) nv.refreshLayers(nv.volumes[layer], layer);  // the scan below has not changed
      nv.drawScene();
    });
  }

  // --- places -------------------------------------------------------------------------------------------------
  let current = data.start;

  function goTo(voxel) {
    nv.scene.crosshairPos = nv.mm2frac(toMm(voxel), 0, true);
    nv.drawScene();
    nv.createOnLocationChange();
    paintScaleBar();
  }

  const here = () => toVoxel([...nv.frac2mm(nv.scene.crosshairPos, 0, true)].slice(0, 3));

  function showPlace(value) {
    current = here();
    const parts = [data.is_2d ? `pixel ${current[0]}, ${current[1]}` : `voxel ${current.join(", ")}`];
    if (!data.is_2d) {
      const slice = current[data.stack_axis];
      parts.push(`${data.plane} slice ${slice + 1} of ${data.shape[data.stack_axis]}`);
      if (data.image_numbers.length) parts.push(`DICOM ${data.image_numbers[current[2]]}`);
    }
    if (data.has_geometry) {
      const mm = toMm(current);
      parts.push(["RL", "AP", "SI"].map((ends, i) => `${ends[mm[i] >= 0 ? 0 : 1]} ${Math.abs(mm[i]).toFixed(1)}`).join("  ") + " mm");
    }
    if (value !== undefined) parts.push(`map ${value.toFixed(3)}`);
    byId("place").textContent = parts.join("  \u00b7  ");
    for (const curve of all(".curve svg")) moveCursor(curve);
  }

  nv.onLocationChange = (place) => showPlace(place.values[1] && place.values[1].value);

  for (const row of all("tr[data-voxel]")) {
    const show = () => {
      for (const other of all("tr[aria-current]")) other.removeAttribute("aria-current");
      row.setAttribute("aria-current", "true");
      goTo(row.dataset.voxel.split(",").map(Number));
    };
    row.addEventListener("click", show);
    row.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); show(); }
      const next = { ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling }[event.key];
      if (next) { event.preventDefault(); next.focus(); }
    });
  }

  // --- curves -------------------------------------------------------------------------------------------------
  function moveCursor(svg) {
    const { axis, left, step } = svg.dataset;
    const index = current[axis], x = Number(left) + index * step;
    const cursor = svg.querySelector(".cursor");
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    const point = svg.querySelector(`circle[data-index="${index}"] title`);
    const text = point ? point.textContent : `slice ${index}: not scored`;
    svg.setAttribute("aria-valuenow", index);
    svg.setAttribute("aria-valuetext", text);
    svg.closest("figure").querySelector("output").textContent = text;
  }

  function goToSlice(svg, index) {
    const voxel = [...current], axis = svg.dataset.axis;
    voxel[axis] = Math.min(Math.max(Math.round(index), 0), data.shape[axis] - 1);
    goTo(voxel);
  }

  for (const svg of all(".curve svg")) {
    svg.addEventListener("click", (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      goToSlice(svg, (at.x - svg.dataset.left) / Math.max(svg.dataset.step, 1e-9));
    });
    svg.addEventListener("keydown", (event) => {
      const index = current[svg.dataset.axis], last = data.shape[svg.dataset.axis] - 1;
      const to = {
        ArrowLeft: index - 1, ArrowDown: index - 1, ArrowRight: index + 1, ArrowUp: index + 1,
        PageDown: index - 10, PageUp: index + 10, Home: 0, End: last,
      }[event.key];
      if (to !== undefined) { event.preventDefault(); goToSlice(svg, to); }
    });
  }

  // --- controls -----------------------------------------------------------------------------------------------
  // In 3D, a CT in the window it is read in is a white block: there its bones are shown, faint from inside.
  const BONES = [150, 1500];
  const windowChoice = byId("window");
  function showWindow() {
    if (!nv.volumes.length) return;
    const chosen = windowChoice && windowChoice.value ? windowChoice.value.split(",").map(Number) : data.window;
    const in3d = data.is_ct && nv.opts.sliceType === niivue.SLICE_TYPE.RENDER;
    [nv.volumes[0].cal_min, nv.volumes[0].cal_max] = in3d ? BONES : chosen;
    nv.updateGLVolume();
  }
  if (windowChoice) windowChoice.addEventListener("input", showWindow);

  const views = {
    multi: niivue.SLICE_TYPE.MULTIPLANAR, axial: niivue.SLICE_TYPE.AXIAL, coronal: niivue.SLICE_TYPE.CORONAL,
    sagittal: niivue.SLICE_TYPE.SAGITTAL, render: niivue.SLICE_TYPE.RENDER,
  };
  for (const button of all("button[data-view]")) {
    button.hidden = data.is_2d;
    button.addEventListener("click", () => {
      for (const other of all("button[data-view]")) other.setAttribute("aria-pressed", String(other === button));
      nv.opts.sliceType = views[button.dataset.view];
      nv.overlayOutlineWidth = outlineWidth();
      nv.setSliceType(views[button.dataset.view]);
      if (data.is_ct) showWindow();
      paintScaleBar();
    });
  }
  window.addEventListener("resize", () => {
    nv.overlayOutlineWidth = outlineWidth();
    setTimeout(paintScaleBar, 100);  // once the viewer has drawn itself anew
  });
  threshold.addEventListener("input", () => { cut = Number(threshold.value); refresh(); });
  for (const control of [opacity, colormap, rest, outline]) control.addEventListener("input", refresh);
  byId("reset").addEventListener("click", () => {
    cut = data.threshold;
    threshold.value = cut;
    opacity.value = opacity.defaultValue;
    rest.checked = outline.checked = true;
    colormap.selectedIndex = 0;
    if (windowChoice) windowChoice.selectedIndex = 0;
    paintTexts();
    paintLegend();
    if (mask) style();
    showWindow();
    goTo(data.start);
  });
  paintTexts();
  paintLegend();
  byId("place").textContent = "unpacking the scan ...";

  // --- the volumes --------------------------------------------------------------------------------------------
  const volumeOf = (id, name, options) =>
    niivue.NVImage.loadFromBase64({ base64: byId(id).textContent, name, ...options });
  try {
    await new Promise((done) => setTimeout(done, 30));  // the page is drawn before the volumes are unpacked
    await nv.attachToCanvas(byId("view"));
    nv.setSliceType(data.is_2d ? views[data.plane] : views.multi);
    const [low, high] = data.window;
    nv.addVolume(await volumeOf("scan-volume", "scan.nii.gz", { colormap: "gray", cal_min: low, cal_max: high }));
    nv.opts.multiplanarLayout = niivue.MULTIPLANAR_TYPE.GRID;  // not before: it cannot be laid out empty
    const map = await volumeOf("anomaly-volume", "map.nii.gz", { colormap: "map", cal_min: 0, cal_max: 1 });
    mask = await volumeOf("mask-volume", "mask.nii.gz", { colormap: "mask", cal_min: 0, cal_max: 1 });
    mask.img.forEach((marked, voxel) => { if (marked) mask.img[voxel] = Math.max(1, map.img[voxel]); });
    style();  // the controls may have been moved by now
    nv.addVolume(map);
    nv.addVolume(mask);
    goTo(data.start);
  } catch (error) {
    say(`The viewer cannot start (${error.message || error}). It needs WebGL 2; the tables still hold.`);
    throw error;
  }
  window.medzsadReport = { nv, goTo, here, ready: true };
})();
