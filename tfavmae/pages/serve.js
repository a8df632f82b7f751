"use strict";
const $ = (id) => document.getElementById(id);
let asked = 0;

function add(parent, tag, text, className) {
  const node = parent.appendChild(document.createElement(tag));
  node.textContent = text;
  if (className) node.className = className;
  return node;
}

async function ask(verb, file, query) {
  const body = new FormData();
  body.append("file", file);
  const address = `v1/models/${encodeURIComponent(model().value)}:${verb}${query || ""}`;
  const reply = await fetch(address, { method: "POST", body });
  const answer = await reply.json().catch(() => ({ error: `status ${reply.status}` }));
  if (!reply.ok) throw new Error(answer.error);
  return answer.results[0];
}

function model() { return $("model"); }

function verbs() {
  const chosen = model().selectedOptions ? model().selectedOptions[0] : model();
  return chosen.dataset.verbs.split(" ").filter(Boolean);
}

function preview(file) {
  const box = $("preview"), kind = file.type.split("/")[0];
  if (box.firstChild) URL.revokeObjectURL(box.firstChild.src);
  box.replaceChildren();
  const tag = { video: "video", audio: "audio", image: "img" }[kind];
  if (!tag) return;
  const node = document.createElement(tag);
  node.src = URL.createObjectURL(file);
  if (tag === "img") node.alt = file.name; else node.controls = true;
  box.append(node);
}

function showClasses(answer) {
  for (const [name, classes] of Object.entries(answer)) {
    if (!name.endsWith("probabilities") || !Array.isArray(classes)) continue;
    const head = name.replace("probabilities", "").replace("_", "");
    if (head) add($("classes"), "h4", head);
    for (const one of classes) {
      const percent = (100 * one.probability).toFixed(1);
      const row = add($("classes"), "div", "", "class");
      row.style.setProperty("--share", percent);
      add(row, "span", one.label);
      add(row, "i", "");
      add(row, "b", `${percent} %`);
    }
  }
}

/* A map over the picture, else the first of two or more axes; the last two are shown. */
function showHeat(windows) {
  const first = windows[0] || {};
  const maps = Object.values(first).filter((x) => Array.isArray(x) && Array.isArray(x[0]));
  let map = first.video_map || maps[0];
  if (!map) return;
  while (Array.isArray(map[0][0])) map = map[0];
  const flat = map.flat(), low = Math.min(...flat), span = Math.max(...flat) - low || 1;
  const canvas = $("heat"), draw = canvas.getContext("2d");
  canvas.width = map[0].length; canvas.height = map.length;
  canvas.style.aspectRatio = `${canvas.width} / ${canvas.height}`;
  map.forEach((row, y) => row.forEach((value, x) => {
    const heat = (value - low) / span;
    draw.fillStyle = `hsl(${240 - 220 * heat} 80% ${20 + 40 * heat}%)`;
    draw.fillRect(x, y, 1, 1);
  }));
  $("similarity").hidden = false;
}

async function show(file) {
  if (!file || !model()) return;
  const turn = ++asked, isLast = () => turn === asked;
  $("answer").hidden = false;
  $("classes").replaceChildren();
  $("nearest").querySelector("ol").replaceChildren();
  $("similarity").hidden = $("nearest").hidden = true;
  $("name").textContent = file.name;
  $("windows").textContent = "";
  $("status").className = "";
  $("status").textContent = "asking the model ...";
  preview(file);
  const can = verbs();
  try {
    if (can.includes("classify")) {
      const answer = await ask("classify", file);
      if (!isLast()) return;
      showClasses(answer);
      if (answer.num_windows > 1) $("windows").textContent = `mean of ${answer.num_windows} windows`;
    }
    const hasBoth = !/^(audio|image)\//.test(file.type);
    if (can.includes("similarity") && hasBoth) {
      const answer = await ask("similarity", file);
      if (!isLast()) return;
      showHeat(answer.windows || []);
    }
    const hasIndex = "index" in document.querySelector(".ask").dataset;
    if (can.includes("embed") && (hasIndex || !can.includes("classify"))) {
      const answer = await ask("embed", file);
      if (!isLast()) return;
      for (const one of answer.nearest || []) add($("nearest").querySelector("ol"), "li", `${one.place} (${one.similarity.toFixed(2)})`);
      $("nearest").hidden = !(answer.nearest || []).length;
      if (!can.includes("classify")) {
        const sizes = Object.entries(answer).filter(([k]) => k.endsWith("_embedding"));
        const text = sizes.map(([k, v]) => `${k.replace("_embedding", "")}: ${v.length} numbers`);
        add($("classes"), "p", `This model gives embeddings and no classes (${text.join(", ")}).`);
      }
    }
    $("status").textContent = can.length ? "" : "This model takes no files.";
  } catch (error) {
    if (!isLast()) return;
    $("status").className = "bad";
    $("status").textContent = error.message;
  }
}

const drop = document.querySelector(".drop");
$("file").addEventListener("change", (event) => show(event.target.files[0]));
for (const name of ["dragover", "dragenter"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
for (const name of ["dragleave", "drop"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.remove("over"); });
}
document.addEventListener("drop", (event) => show(event.dataTransfer.files[0]));
