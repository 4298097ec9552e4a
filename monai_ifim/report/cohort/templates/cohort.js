"use strict";
(() => {
  const ROWS = 200; // of the list that are shown at a time
  const KINDS = 200; // answers that the filter offers
  const byId = (id) => document.getElementById(id);
  const records = JSON.parse(byId("records").textContent);
  const { columns, absent } = records;
  const names = columns[0].texts;
  const table = document.querySelector("#cases table");
  document.documentElement.classList.add("scripted");
  if (!table) return;

  const body = table.tBodies[0];
  const tableBox = table.closest(".wide");
  const { heads } = records;
  const tools = document.querySelector(".tools");
  const [words, viewer, gallery] = [byId("words"), byId("viewer"), byId("gallery")];
  const [filter, ordering, look, shortcuts] = [byId("filter"), byId("order"), byId("look"), byId("shortcuts")];
  const collator = new Intl.Collator("en", { numeric: true });
  const status = columns.find((column) => column.head === records.heads.status).texts;
  const folded = (text) => text.normalize("NFKC").toLowerCase(); // ü is one character or two, and both are found
  const haystacks = names.map((_, i) => folded([...columns.map((c) => c.texts[i]), records.searched[i]].join(" ")));

  let order = names.map((_, i) => i); // all cases as sorted
  let view = order; // those that the search leaves
  let active = 0; // place in view
  let shown = null; // case in the viewer
  let pictured = records.thumbnails.some(Boolean); // the gallery is shown, not the table

  // The list

  const cell = (column, i) => {
    const text = column.texts[i];
    const td = document.createElement("td");
    td.className = text ? (text === "failed" && column.head === heads.status ? "failed" : column.kind) : "absent";
    if (column.kind === "words") td.dir = "auto";
    td.textContent = text || (column.head === heads.notes && status[i] !== "failed" ? "" : absent);
    return td;
  };

  const breakable = (text) => text.split(/(?<=[_.-])/).flatMap((part) => [part, document.createElement("wbr")]);

  const link = (target, text) => {
    const a = document.createElement("a");
    a.href = target;
    a.dir = "auto"; // names run in the direction of their script
    a.append(...breakable(text));
    a.setAttribute("aria-label", text); // without the places where a line may end
    return a;
  };

  const addressOf = (i) => (records.pages[i] ? `./${records.pages[i]}` : `#case-${i + 1}`);
  const textOf = (head, i) => columns.find((column) => column.head === head)?.texts[i] ?? "";

  const tile = (i, place) => {
    const li = document.createElement("li");
    const name = link(addressOf(i), names[i]);
    name.tabIndex = place === active ? 0 : -1;
    const picture = document.createElement(records.thumbnails[i] ? "img" : "i");
    if (records.thumbnails[i]) {
      picture.src = records.thumbnails[i];
      picture.alt = ""; // the sentence below says what there is to say
      picture.decoding = "async";
    } else picture.textContent = status[i] === "failed" ? "\u00d7" : "no picture";
    const [answer, sentence] = [document.createElement("b"), document.createElement("p")];
    const said = [heads.answer, heads.probability].map((head) => textOf(head, i)).filter(Boolean);
    answer.dir = "auto";
    answer.append(...breakable(status[i] === "failed" ? status[i] : said.join(" ")));
    sentence.textContent = records.sentences[i];
    li.append(picture, name, answer, sentence);
    li.classList.toggle("active", place === active);
    li.dataset.place = place;
    return li;
  };

  const row = (i, place) => {
    const tr = document.createElement("tr");
    const th = document.createElement("th");
    th.scope = "row";
    const name = link(addressOf(i), names[i]);
    name.tabIndex = place === active ? 0 : -1;
    th.append(name);
    tr.append(th, ...columns.slice(1).map((column) => cell(column, i)));
    const files = document.createElement("td");
    const folder = encodeURIComponent(names[i]);
    files.className = status[i] === "failed" ? "absent" : "text";
    files.append(status[i] === "failed" ? absent : link(`./${folder}/${folder}_ifim.json`, "json"));
    tr.append(files);
    tr.classList.toggle("active", place === active);
    tr.dataset.place = place;
    return tr;
  };

  const draw = () => {
    const start = Math.floor(active / ROWS) * ROWS;
    const end = Math.min(start + ROWS, view.length);
    const listed = view.slice(start, end);
    body.replaceChildren(...(pictured ? [] : listed.map((i, n) => row(i, start + n))));
    gallery.replaceChildren(...(pictured ? listed.map((i, n) => tile(i, start + n)) : []));
    gallery.hidden = !pictured;
    tableBox.hidden = pictured;
    look.textContent = pictured ? "Show as a table" : "Show as pictures";
    byId("found").textContent = `${view.length.toLocaleString("en")} of ${names.length.toLocaleString("en")} cases`;
    document.querySelector(".pager").hidden = view.length <= ROWS;
    byId("page").textContent = `${(start + 1).toLocaleString("en")} to ${end.toLocaleString("en")}`;
    byId("earlier").disabled = start === 0;
    byId("later").disabled = end === view.length;
  };

  const rowAt = (place) => document.querySelector(`#cases :is(tr, li)[data-place="${place}"]`);

  const move = (place, focus) => {
    if (!view.length) return;
    const before = active;
    active = Math.max(0, Math.min(place, view.length - 1));
    if (Math.floor(before / ROWS) !== Math.floor(active / ROWS)) draw();
    for (const [at, on] of [[before, false], [active, true]]) {
      const tr = rowAt(at);
      if (!tr) continue;
      tr.classList.toggle("active", on);
      tr.querySelector("a").tabIndex = on ? 0 : -1;
    }
    if (focus) rowAt(active).querySelector("a").focus();
  };

  const search = () => {
    const wanted = folded(words.value).split(/\s+/).filter(Boolean);
    const fits = filters[filter.value]?.fits ?? (() => true);
    view = order.filter((i) => fits(i) && wanted.every((word) => haystacks[i].includes(word)));
    active = 0;
    draw();
  };

  const turnsOf = (column) => (column.values ? ["descending", "ascending"] : ["ascending", "descending"]);

  const sortNext = (column, th) => sort(column, turnsOf(column)[turnsOf(column).indexOf(th.getAttribute("aria-sort")) + 1]);

  const sort = (column, turn) => { // without a turn, in the order of the run
    const cells = table.tHead.rows[0].cells;
    for (const cell of cells) cell.removeAttribute("aria-sort");
    order = names.map((_, i) => i);
    ordering.value = turn ? `${columns.indexOf(column)} ${turn}` : "";
    if (!turn) return search();
    cells[columns.indexOf(column)].setAttribute("aria-sort", turn);
    const keys = column.values ?? column.texts.map((text) => text || null);
    const compare = column.values ? (a, b) => a - b : collator.compare;
    const sign = turn === "descending" ? -1 : 1;
    order.sort((a, b) => {
      if (keys[a] === null || keys[b] === null) return (keys[a] === null) - (keys[b] === null) || a - b; // unknown ones last
      return sign * compare(keys[a], keys[b]) || a - b;
    });
    return search();
  };

  [...table.tHead.rows[0].cells].slice(0, columns.length).forEach((th, n) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...th.childNodes);
    button.addEventListener("click", () => sortNext(columns[n], th));
    th.replaceChildren(button);
  });

  // What is shown, and in which order

  const option = (select, value, text) => {
    const found = document.createElement("option");
    [found.value, found.textContent] = [value, text];
    select.append(found);
  };
  const answers = columns.find((column) => column.head === heads.answer).texts;
  const filters = {
    "": { name: "all cases", fits: () => true },
    notable: { name: "cases that stand out", fits: (i) => Boolean(textOf(heads.notes, i)) },
    failed: { name: "failed cases", fits: (i) => status[i] === "failed" },
  };
  const kinds = [...new Set(answers.filter(Boolean))].sort(collator.compare).slice(0, KINDS);
  kinds.forEach((kind, n) => (filters[`answer ${n}`] = { name: `answer: ${kind}`, fits: (i) => answers[i] === kind }));
  for (const [value, { name, fits }] of Object.entries(filters)) {
    const number = names.filter((_, i) => fits(i)).length;
    if (!value || number) option(filter, value, `${name} (${number.toLocaleString("en")})`);
  }
  option(ordering, "", "in the order of the run");
  columns.forEach((column, n) => {
    if (!column.texts.some(Boolean)) return;
    const said = column.values
      ? { descending: "largest first", ascending: "smallest first" }
      : { descending: "Z to A", ascending: "A to Z" };
    for (const turn of turnsOf(column)) option(ordering, `${n} ${turn}`, `${column.head}, ${said[turn]}`);
  });
  filter.addEventListener("change", search);
  ordering.addEventListener("change", () => {
    const [n, turn] = ordering.value.split(" ");
    sort(columns[n], turn);
  });
  look.addEventListener("click", () => {
    pictured = !pictured;
    draw();
  });

  // One case

  const packed = names.map((_, i) => i).filter(((still) => (i) => !still.has(i) && !records.pages[i])(new Set(records.still)));
  const packs = new Map();

  const unpack = async (n) => {
    const bytes = Uint8Array.from(atob(records.packs[n]), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).json();
  };

  const cardOf = async (i) => {
    const still = document.querySelector(`#case-${i + 1} > noscript`);
    if (still) return still.textContent;
    const place = packed.indexOf(i);
    const n = Math.floor(place / records.pack);
    if (!packs.has(n)) packs.set(n, unpack(n));
    return (await packs.get(n))[place % records.pack];
  };

  const reading = () => { // once on the page, folded
    const fold = document.createElement("details");
    const head = document.createElement("summary");
    head.textContent = byId("reading-title").textContent;
    fold.append(head, document.querySelector("#reading .box").cloneNode(true));
    return fold;
  };

  let opening = false; // its card is being unpacked

  const open = async (i, stepping = false) => {
    if (records.pages[i]) return location.assign(addressOf(i));
    shown = i;
    opening = true;
    const place = view.indexOf(i);
    if (place >= 0) move(place, false);
    byId("viewer-title").textContent = names[i];
    byId("viewer-place").textContent =
      place < 0 ? "" : `${(place + 1).toLocaleString("en")} of ${view.length.toLocaleString("en")}`;
    byId("previous").disabled = place <= 0;
    byId("next").disabled = place < 0 || place === view.length - 1;
    history.replaceState(null, "", `#case-${i + 1}`);
    const card = await cardOf(i).finally(() => (opening &&= shown !== i));
    if (shown !== i) return; // another was asked for meanwhile
    byId("viewer-card").innerHTML = card; // written and escaped by the program that wrote this page
    byId("viewer-card").querySelector(".settings")?.before(reading());
    if (!viewer.open) viewer.showModal();
    const slices = byId("viewer-card").querySelector(".slices");
    if (slices) showSlices(slices, records.tables);
    viewer.scrollTop = 0;
    const focused = document.activeElement;
    if (!focused?.matches("#viewer button:enabled") || !stepping) byId("viewer-title").focus();
  };

  const step = (by) => {
    const place = view.indexOf(shown) + by;
    if (place >= 0 && place < view.length) open(view[place], true);
  };

  const leave = () => {
    if (viewer.open) return; // opened again meanwhile
    shown = null;
    byId("viewer-card").replaceChildren();
    if (location.hash && !location.hash.startsWith("#case-")) return; // a link of the case leads elsewhere on the page
    history.replaceState(null, "", location.pathname + location.search);
    move(active, true);
  };

  const openHash = () => {
    const found = /^#case-(\d+)$/.exec(location.hash);
    if (found && found[1] >= 1 && found[1] <= names.length) open(found[1] - 1);
    else if (viewer.open) viewer.close();
  };

  // Hands and keys

  document.addEventListener("click", (event) => {
    const target = event.target.closest?.("a[href^='#']");
    const named = /^#case-(\d+)$/.exec(target?.getAttribute("href") ?? "");
    if (named) {
      event.preventDefault();
      open(named[1] - 1);
    } else if (target && viewer.open) viewer.close();
    const listed = event.target.closest?.("#cases tbody tr, #gallery li");
    if (listed && !event.target.closest("a") && !getSelection().toString()) open(view[listed.dataset.place]);
  });

  const inViewer = { j: 1, ArrowRight: 1, k: -1, ArrowLeft: -1 };
  const across = () => getComputedStyle(gallery).gridTemplateColumns.split(" ").length; // tiles in a row
  const inList = () =>
    pictured
      ? { j: 1, k: -1, ArrowRight: 1, ArrowLeft: -1, ArrowDown: across(), ArrowUp: -across() }
      : { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const { key, target } = event;
    if (key.length === 1 && !shortcuts.checked && target !== words) return;
    if (viewer.open || opening) {
      if (!(key in inViewer) || (key.startsWith("Arrow") && target.matches("#viewer :is(input, canvas)"))) return;
      event.preventDefault();
      step(inViewer[key]);
    } else if (target === words) {
      if (key === "Escape") {
        words.value = "";
        search();
      }
      if (!["Escape", "Enter", "ArrowDown"].includes(key)) return;
      event.preventDefault();
      move(active, true);
    } else if (key === "/") {
      event.preventDefault();
      words.focus();
      words.select();
    } else if (target.matches("select")) return;
    else if (key in inList()) {
      const listed = body.contains(target) || gallery.contains(target);
      if (key.startsWith("Arrow") && !listed) return; // elsewhere arrows scroll
      event.preventDefault();
      const to = active + (listed ? inList()[key] : 0);
      if (to >= 0 && to < view.length) move(to, true);
    } else if ((body.contains(target) || gallery.contains(target)) && (key === "Home" || key === "End")) {
      event.preventDefault();
      move(key === "Home" ? 0 : view.length - 1, true);
    }
  });

  words.addEventListener("input", search);
  byId("earlier").addEventListener("click", () => move((Math.floor(active / ROWS) - 1) * ROWS, false));
  byId("later").addEventListener("click", () => move((Math.floor(active / ROWS) + 1) * ROWS, false));
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("close", leave);
  addEventListener("hashchange", openHash);

  tools.hidden = false;
  look.hidden = !pictured;
  draw();
  performance.mark("list");
  document.addEventListener("DOMContentLoaded", () => { // cards lie further down the page
    if (names.length === 1 && !location.hash && records.thumbnails[0]) open(0);
    else openHash();
  });
})();
