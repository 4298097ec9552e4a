"use strict";
// The viewer of one case: slices of its maps on canvases, which a crosshair ties together.
const showSlices = (root, tables) => {
  const MINUS = "\u2212";
  const FIRM = "\u00a0";
  const STRENGTH = 0.75; // opacity of the largest value at full strength, as in all figures
  const GAP = 11; // CSS pixels around the crosshair's centre that stay free: the spot itself is never covered
  const SIDES = [["L", "R"], ["P", "A"], ["I", "S"]];
  const find = (selector) => root.querySelector(selector);
  const all = (selector) => [...root.querySelectorAll(selector)];
  const data = JSON.parse(find(".slice-data").textContent);
  const figures = all("figure.slice");
  const strength = find(".strength");
  const zoom = find(".zoom");
  const { shape, affine, views } = data;
  const cursor = [...data.start];
  let mode = find(".modes input:checked").value;
  let zoomed = data.zoomed;
  let main = 0; // the view that is drawn large

  // Numbers as everywhere on the page: significant digits, and a power of ten for the very small and the very large

  const signs = (text) => text.replace("-", MINUS);
  const number = (value, digits = 3) => {
    if (value === 0) return "0";
    const [mantissa, power] = value.toExponential(digits - 1).split("e");
    const size = Math.abs(Number(`${mantissa}e${power}`));
    if (size < 1e-4 || size >= 1e5) return signs(`${mantissa}e${Number(power)}`);
    return signs(value.toFixed(Math.max(0, digits - 1 - Number(power))));
  };
  const rounded = (value) => { // up, to one digit
    const step = 10 ** Math.floor(Math.log10(value));
    return Math.ceil(value / step - 1e-9) * step;
  };
  const measured = (value, half) => {
    const digits = Math.abs(value) > half ? Math.ceil(Math.log10(Math.abs(value) / half)) + 1 : 1;
    return number(Math.abs(value) < half / 2 ? 0 : value, Math.min(Math.max(digits, 1), 9));
  };

  // Samples

  const unpack = async (map) => {
    const bytes = Uint8Array.from(atob(map.data), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const content = new Uint8Array(await new Response(stream).arrayBuffer());
    if (!map.wide) return content;
    const count = content.length / 2;
    const levels = new Uint16Array(count);
    for (let n = 0, level = 0; n < count; n++) {
      level = (level + content[n] + (content[n + count] << 8)) & 0xffff;
      levels[n] = level;
    }
    return levels;
  };

  const maps = Object.fromEntries(data.maps.map((map) => [map.key, map]));
  const sampleAt = (map, axis, voxel) =>
    Math.min(map.shape[axis] - 1, Math.max(0, Math.round((voxel - map.first[axis]) / map.step[axis])));
  const offsetOf = (map, place) => {
    const [i, j, k] = place.map((voxel, axis) => sampleAt(map, axis, voxel));
    return (i * map.shape[1] + j) * map.shape[2] + k;
  };

  // Colours: red, green, blue and opacity of every level

  const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const shade = (map, over) => {
    const count = map.wide ? 65536 : 256;
    const found = new Uint8ClampedArray(4 * count);
    if (map.colors === "labels") {
      for (const [value, label] of Object.entries(data.labels.known)) {
        const rgb = [1, 3, 5].map((at) => parseInt(label.color.slice(at, at + 2), 16));
        found.set([...rgb, over ? 190 : 255], 4 * value);
      }
      return found;
    }
    const table = bytesOf(tables[map.colors]);
    const [low, high] = map.window;
    for (let level = 0; level < count; level++) {
      const share = Math.min(1, Math.max(0, (map.low + map.quantum * level - low) / (high - low)));
      const at = 3 * Math.round(255 * share);
      const size = map.kind === "high" || map.kind === "eigenvector" ? Math.abs(2 * share - 1) : share;
      found.set([table[at], table[at + 1], table[at + 2], over ? Math.round(255 * STRENGTH * size) : 255], 4 * level);
    }
    return found;
  };
  const shades = new Map();
  const shadeOf = (map, over) => {
    const key = `${map.key} ${over}`;
    if (!shades.has(key)) shades.set(key, shade(map, over));
    return shades.get(key);
  };

  // Pictures

  const extents = () => (zoomed ? data.extent : shape.map((size) => [0, size - 1]));

  const cut = (map, view, over) => {
    const [height, width] = [map.shape[view.rows], map.shape[view.columns]];
    const strides = [map.shape[1] * map.shape[2], map.shape[2], 1];
    const start = sampleAt(map, view.normal, cursor[view.normal]) * strides[view.normal];
    const picture = new OffscreenCanvas(width, height);
    const context = picture.getContext("2d");
    const pixels = context.createImageData(width, height);
    const table = new Uint32Array(shadeOf(map, over).buffer);
    const target = new Uint32Array(pixels.data.buffer);
    for (let r = 0, n = 0; r < height; r++) {
      const row = start + (view.flips[0] ? height - 1 - r : r) * strides[view.rows];
      for (let c = 0; c < width; c++, n++) {
        target[n] = table[map.levels[row + (view.flips[1] ? width - 1 - c : c) * strides[view.columns]]];
      }
    }
    context.putImageData(pixels, 0, 0);
    return picture;
  };

  // Left (or top) end and length, in voxels of the picture, of the samples of a map along an axis
  const spanOf = (map, axis, flipped, [first, last]) => {
    const begin = map.first[axis] - map.step[axis] / 2;
    const length = map.shape[axis] * map.step[axis];
    return [flipped ? last + 0.5 - (begin + length) : begin - (first - 0.5), length];
  };

  const place = (canvas, view, map, over, alpha) => {
    const box = extents();
    const [x, wide] = spanOf(map, view.columns, view.flips[1], box[view.columns]);
    const [y, tall] = spanOf(map, view.rows, view.flips[0], box[view.rows]);
    const [across, down] = scales(canvas, view);
    const context = canvas.getContext("2d");
    context.globalAlpha = alpha;
    context.imageSmoothingEnabled = map.colors !== "labels";
    context.imageSmoothingQuality = "high";
    context.drawImage(cut(map, view, over), x * across, y * down, wide * across, tall * down);
    context.globalAlpha = 1;
  };

  const count = (axis) => {
    const [first, last] = extents()[axis];
    return last - first + 1;
  };
  const scales = (canvas, view) => [canvas.width / count(view.columns), canvas.height / count(view.rows)];

  // Middle of a voxel in pixels of the canvas, and the voxel at a pixel
  const toPixel = (voxel, axis, flipped, scale) => {
    const [first, last] = extents()[axis];
    return ((flipped ? last - voxel : voxel - first) + 0.5) * scale;
  };
  const toVoxel = (pixel, axis, flipped, scale) => {
    const [first, last] = extents()[axis];
    const n = Math.floor(pixel / scale);
    return Math.min(last, Math.max(first, flipped ? last - n : first + n));
  };

  const cross = (canvas, view) => {
    const context = canvas.getContext("2d");
    const ratio = canvas.width / canvas.clientWidth || 1;
    const [across, down] = scales(canvas, view);
    const x = Math.round(toPixel(cursor[view.columns], view.columns, view.flips[1], across)) + 0.5;
    const y = Math.round(toPixel(cursor[view.rows], view.rows, view.flips[0], down)) + 0.5;
    const gap = ratio * GAP + Math.max(across, down) / 2;
    for (const [width, color] of [[3, "rgb(0 0 0 / .55)"], [1, "#fff"]]) {
      context.lineWidth = width * ratio;
      context.strokeStyle = color;
      context.beginPath();
      for (const [ax, ay, bx, by] of [[0, y, x - gap, y], [x + gap, y, canvas.width, y], [x, 0, x, y - gap], [x, y + gap, x, canvas.height]]) {
        if (ax > bx || ay > by) continue;
        context.moveTo(ax, ay);
        context.lineTo(bx, by);
      }
      context.stroke();
    }
  };

  const isOver = () => mode === "overlay" || mode === "labels" || mode.startsWith("eigenvector");
  const topMap = () => maps[mode === "overlay" ? "sensitivity" : mode];

  const draw = () => {
    figures.forEach((figure, n) => {
      const canvas = figure.querySelector("canvas");
      const ratio = devicePixelRatio || 1;
      const [width, height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio].map(Math.round);
      if (!width || !height) return;
      if (canvas.width !== width) canvas.width = width;
      if (canvas.height !== height) canvas.height = height;
      canvas.getContext("2d").clearRect(0, 0, width, height);
      const view = views[n];
      if (isOver()) {
        if (maps.image) place(canvas, view, maps.image, false, 1);
        place(canvas, view, topMap(), true, strength.value / 100);
      } else place(canvas, view, topMap(), false, 1);
      cross(canvas, view);
    });
    root.dataset.drawn = Number(root.dataset.drawn ?? 0) + 1;
  };

  // Words

  const mm = (voxel) => affine.map((row) => row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3]);
  const side = (value, axis) => {
    const distance = Math.abs(value).toFixed(1);
    return `${SIDES[axis][Number(value >= 0 || Number(distance) === 0)]}${FIRM}${distance}${FIRM}mm`;
  };
  const placeText = () => {
    if (affine) return mm(cursor).map(side).join(", ");
    const [view] = views;
    const [row, column] = [[view.rows, view.flips[0]], [view.columns, view.flips[1]]].map(
      ([axis, flipped]) => (flipped ? shape[axis] - 1 - cursor[axis] : cursor[axis]) + 1);
    return `row ${row}, column ${column}`;
  };

  const valueText = (map) => {
    const sampled = [0, 1, 2].every((axis) => map.first[axis] + map.step[axis] * sampleAt(map, axis, cursor[axis]) === cursor[axis]);
    const level = map.levels[offsetOf(map, cursor)];
    const near = sampled ? "" : " (nearest voxel kept)";
    if (map.colors === "labels") return `${data.labels.known[level]?.name ?? (level ? level : "background")}${near}`;
    const unit = map.unit && map.unit !== "1" ? `${FIRM}${map.unit}` : "";
    const value = map.low + map.quantum * level;
    if (cursor.every((voxel, axis) => voxel === data.start[axis])) return `${number(map.atStart, 4)}${unit}`;
    if (map.exact) return `${number(value, 6)}${unit}${near}`;
    if (map.clipped && level === 255) return `\u2265${FIRM}${number(map.window[1])}${unit}${near}`;
    if (map.clipped && level === 0 && map.window[0] !== 0) return `\u2264${FIRM}${number(map.window[0])}${unit}${near}`;
    const half = map.quantum / 2;
    return `${measured(value, half)}${FIRM}\u00b1${FIRM}${number(rounded(1.1 * half), 1)}${unit}${near}`;
  };

  const tell = () => {
    find(".place").textContent = placeText();
    const said = data.maps.map((map) => {
      const [name, value] = [document.createElement("dt"), document.createElement("dd")];
      name.textContent = map.title;
      value.textContent = valueText(map);
      value.dataset.map = map.key;
      const pair = document.createElement("div");
      pair.append(name, value);
      return pair;
    });
    find(".values").replaceChildren(...said);
    figures.forEach((figure, n) => {
      const { normal, name } = views[n];
      const scroll = figure.querySelector(".scroll");
      const text = `slice ${cursor[normal] + 1} of ${shape[normal]}`;
      if (scroll) {
        scroll.value = views[n].reversed ? shape[normal] - 1 - cursor[normal] : cursor[normal];
        scroll.setAttribute("aria-valuetext", text);
        figure.querySelector(".number").textContent = text;
      }
      const words = topMap().title + (isOver() && maps.image ? ` over ${maps.image.title.toLowerCase()}` : "");
      const shown = topMap().colors === "labels" ? "" : `; shown from ${topMap().marks[0]} to ${topMap().marks[2]} ${topMap().unit}`;
      const plane = name === "image" ? "image" : `${name} plane, ${text}`;
      figure.querySelector("canvas").setAttribute("aria-label", `${words}, ${plane}${shown}`.trim());
    });
  };

  const bar = (view) => { // the longest of 1, 2, 5 times a power of ten within two fifths of the picture
    const longest = 0.4 * count(view.columns) * view.spacing[1];
    const power = 10 ** Math.floor(Math.log10(longest));
    const length = Math.max(...[1, 2, 5].map((factor) => factor * power).filter((value) => value <= longest * (1 + 1e-9)));
    return [number(length, 1), (100 * length) / (count(view.columns) * view.spacing[1])];
  };

  const layOut = () => {
    figures.forEach((figure, n) => {
      const view = views[n];
      const [across, down] = [count(view.columns) * view.spacing[1], count(view.rows) * view.spacing[0]];
      figure.classList.toggle("main", n === main);
      figure.style.setProperty("--ratio", across / down);
      const ruler = figure.querySelector(".ruler");
      if (!ruler || !affine) return;
      const [text, percent] = bar(view);
      ruler.style.width = `${percent}%`;
      ruler.textContent = `${text}${FIRM}mm`;
    });
    zoom.hidden = !data.zoomed;
    zoom.textContent = zoomed ? "Show the whole image" : "Zoom to what the network saw";
  };

  const scale = () => {
    const map = topMap();
    const legend = find(".slice-legend");
    const labels = map.colors === "labels";
    find(".slice-scale").hidden = labels;
    legend.hidden = !labels;
    find(".slice-scale .colors").className = `colors ${map.colors}`;
    find(".slice-scale .colors").style.clipPath = map.shape_of_bar ?? "";
    all(".slice-scale span").forEach((span, n) => (span.textContent = map.marks[n]));
    find(".slice-scale .unit").textContent = [map.title, map.unit].filter(Boolean).join(", ");
    strength.disabled = !isOver();
    if (!labels) return;
    const rows = data.labels.legend.map((row) => {
      const li = document.createElement("li");
      const [square, name, text] = ["i", "b", "span"].map((tag) => document.createElement(tag));
      square.style.background = row.color;
      name.textContent = row.name;
      text.textContent = row.text;
      li.append(square, name, " ", text);
      return li;
    });
    legend.replaceChildren(...rows);
  };

  let waiting = 0;
  const refresh = () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => root.isConnected && draw());
    tell();
  };
  const refit = () => {
    layOut();
    scale();
    refresh();
  };

  // Hands and keys

  const move = (axis, voxel) => {
    const [first, last] = extents()[axis];
    cursor[axis] = Math.min(last, Math.max(first, voxel));
  };
  const step = (view, by) => { // along the normal, towards the head, the front or the patient's right
    move(view.normal, cursor[view.normal] + by * (view.upward ? 1 : -1));
    refresh();
  };
  const pick = (canvas, view, event) => {
    const box = canvas.getBoundingClientRect();
    const [across, down] = [box.width / count(view.columns), box.height / count(view.rows)];
    move(view.columns, toVoxel(event.clientX - box.x, view.columns, view.flips[1], across));
    move(view.rows, toVoxel(event.clientY - box.y, view.rows, view.flips[0], down));
    refresh();
  };

  figures.forEach((figure, n) => {
    const view = views[n];
    view.upward = !affine || affine.map((row) => row[view.normal]).reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a)) > 0;
    const canvas = figure.querySelector("canvas");
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pick(canvas, view, event);
    });
    canvas.addEventListener("pointermove", (event) => event.buttons && pick(canvas, view, event));
    canvas.addEventListener("keydown", (event) => {
      const moves = {
        ArrowLeft: [view.columns, view.flips[1] ? 1 : -1], ArrowRight: [view.columns, view.flips[1] ? -1 : 1],
        ArrowUp: [view.rows, view.flips[0] ? 1 : -1], ArrowDown: [view.rows, view.flips[0] ? -1 : 1],
      }; // prettier-ignore
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key in moves) {
        const [axis, by] = moves[event.key];
        move(axis, cursor[axis] + by);
        refresh();
      } else if (views.length > 1 && (event.key === "PageUp" || event.key === "PageDown")) step(view, event.key === "PageUp" ? 1 : -1);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    const scroll = figure.querySelector(".scroll");
    if (!scroll) return;
    scroll.max = shape[view.normal] - 1;
    view.reversed = !view.upward; // further right is towards the head, the front or the patient's right
    scroll.addEventListener("input", () => {
      const place = Number(scroll.value);
      move(view.normal, view.reversed ? shape[view.normal] - 1 - place : place);
      refresh();
    });
    canvas.addEventListener("wheel", (event) => {
      if (event.ctrlKey) return;
      event.preventDefault();
      step(view, event.deltaY < 0 ? 1 : -1);
    }, { passive: false }); // prettier-ignore
    figure.querySelector(".enlarge").addEventListener("click", () => {
      main = n;
      refit();
    });
  });

  all(".modes input").forEach((input) =>
    input.addEventListener("change", () => {
      mode = input.value;
      refit();
    }));
  strength.addEventListener("input", refresh);
  zoom.addEventListener("click", () => {
    zoomed = !zoomed;
    for (const axis of [0, 1, 2]) move(axis, cursor[axis]);
    refit();
  });
  find(".home").addEventListener("click", () => {
    cursor.splice(0, 3, ...data.start);
    refresh();
  });

  Promise.all(data.maps.map(async (map) => (map.levels = await unpack(map)))).then(() => {
    if (!root.isConnected) return;
    refit();
    root.parentElement.querySelector(".side-by-side")?.removeAttribute("open"); // it is for browsers without scripts
    new ResizeObserver(() => root.isConnected && draw()).observe(find(".planes"));
    root.dataset.ready = "yes";
  });
};
