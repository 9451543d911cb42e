"use strict";
// The browser of flipped answers: one at a time, filtered by selects, stepped through by buttons and keys.
// What models wrote is only ever set as text.
const data = JSON.parse(document.getElementById("flip-data").textContent);
const part = document.getElementById("flips");
const card = document.getElementById("flip");
const filters = { benchmark: document.getElementById("by-benchmark"), setting: document.getElementById("by-setting"), direction: document.getElementById("by-direction") };
let chosen = []; // the flips that pass the filters
let at = 0; // which of them is shown

function write(id, text) {
  document.getElementById(id).textContent = text;
}

function element(name, text, looks = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = looks;
  return made;
}

function passes(flip) {
  const held = { benchmark: data.questions[flip.question].benchmark, setting: flip.setting, direction: flip.direction };
  return Object.entries(filters).every(([name, select]) => select.value === "" || select.value === held[name]);
}

function shownPicture(name, place, count) {
  const picture = data.pictures[name];
  if (picture.url === null) return element("p", `Picture ${place + 1} can’t be shown: ${picture.problem}.`);
  const image = document.createElement("img");
  image.src = picture.url;
  image.width = picture.width;
  image.height = picture.height;
  image.alt = `Picture ${place + 1} of ${count} that the question is about`;
  return image;
}

function shownChoices(question) {
  return question.choices.map((choice, place) => {
    const right = question.answer === String.fromCharCode(65 + place);
    const item = element("li", choice, right ? "right-one" : "");
    item.dir = "auto";
    return item;
  });
}

function claim(grade) {
  return `${grade.claim === "" ? "nothing" : grade.claim} (${grade.right ? "right" : "wrong"})`;
}

function facts(answer) {
  const said = [`${answer.tokens.toLocaleString("en")} tokens`];
  if (answer.outcome === "cut_off") said.push("cut off by the token limit");
  if (answer.outcome === "empty") said.push("empty");
  if (answer.repeat > 1 || (answer.share > 0 && answer.share < 1)) said.push(`answer ${answer.repeat}`);
  if (answer.share > 0 && answer.share < 1) said.push(`${Math.round(100 * answer.share)} % of its answers are right`);
  return said.join(", ");
}

function shownAnswer(answer) {
  const made = document.getElementById("answer").content.cloneNode(true).firstElementChild;
  const slot = (name) => made.querySelector(`[data-slot=${name}]`);
  made.classList.toggle("right", answer.last.right);
  made.setAttribute("aria-label", `Answer under ${answer.setting}`);
  slot("setting").textContent = answer.setting;
  slot("grade").textContent = answer.last.right ? "✓ right" : "✗ wrong";
  slot("facts").textContent = facts(answer);
  slot("last").textContent = claim(answer.last);
  slot("published").textContent = claim(answer.published);
  slot("text").textContent = answer.text === "" ? "(an answer without a text)" : answer.text;
  return made;
}

/** Folds a text that is much higher than its box would be; only what is shown has a height. */
function foldIfLong(made) {
  const text = made.querySelector("[data-slot=text]");
  const button = made.querySelector(".unfold");
  const fold = (folded) => {
    text.classList.toggle("folded", folded);
    button.setAttribute("aria-expanded", String(!folded));
    button.textContent = folded ? `Show all ${text.textContent.length.toLocaleString("en")} characters` : "Show less";
  };
  fold(true);
  button.hidden = text.scrollHeight < text.clientHeight + 48;
  if (button.hidden) text.classList.remove("folded");
  button.addEventListener("click", () => fold(button.getAttribute("aria-expanded") === "true"));
}

function show() {
  const flip = chosen[at];
  card.hidden = flip === undefined;
  for (const button of part.querySelectorAll("[data-step]")) button.disabled = chosen.length < 2;
  if (flip === undefined) {
    write("position", data.flips.length === 0 ? "No answer flipped." : "None of these flipped.");
    return;
  }
  const question = data.questions[flip.question];
  const before = data.answers[flip.before];
  const after = data.answers[flip.after];
  write("position", `${at + 1} of ${chosen.length}`);
  write("flip-title", `${question.title} ${question.id}`);
  write("flip-direction", flip.direction === "gained" ? `▲ gained under ${flip.setting}` : `▼ lost under ${flip.setting}`);
  document.getElementById("flip-direction").className = flip.direction === "gained" ? "better" : "worse";
  write("flip-text", question.text);
  write("flip-answer", question.answer);
  write("flip-groups", question.groups);
  document.getElementById("flip-choices").replaceChildren(...shownChoices(question));
  document.getElementById("flip-pictures").replaceChildren(...question.pictures.map((name, place) => shownPicture(name, place, question.pictures.length)));
  const answers = [before, after].map(shownAnswer);
  document.getElementById("flip-answers").replaceChildren(...answers);
  answers.forEach(foldIfLong);
}

function step(by) {
  if (chosen.length === 0) return;
  at = (at + by + chosen.length) % chosen.length;
  show();
  // The next one is read from its beginning.
  if (card.getBoundingClientRect().top < 0) card.scrollIntoView();
}

function filter() {
  chosen = data.flips.filter(passes);
  at = 0;
  show();
}

function onKey(event) {
  const by = { ArrowRight: 1, j: 1, ArrowLeft: -1, k: -1 }[event.key];
  if (by === undefined || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select")) return;
  event.preventDefault();
  step(by);
  card.focus({ preventScroll: true });
}

for (const select of Object.values(filters)) select.addEventListener("change", filter);
for (const button of part.querySelectorAll("[data-step]")) {
  button.addEventListener("click", () => step(Number(button.dataset.step)));
}
part.addEventListener("keydown", onKey);
document.getElementById("browser").hidden = false;
filter();
