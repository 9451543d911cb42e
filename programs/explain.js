"use strict";
// One answer at a time, by the slider; the token that is pointed at or focused is explained, and found in the chart.
const answers = [...document.querySelectorAll(".answer")];
const slider = document.getElementById("alpha");
const tip = document.getElementById("tip");
const tokensOf = (answer) => [...answer.querySelectorAll(".tokens .token")];
let shown = null; // the token that is explained
let anchor = null; // a function: where on the screen its explanation belongs
let leaving = 0;
let pointer = { at: "", moved: false }; // scrolling makes things pass under a pointer that rests

function showAnswer(index) {
  hideTip();
  answers.forEach((answer, place) => { answer.hidden = place !== index; });
  if (slider) {
    slider.setAttribute("aria-valuetext", answers[index].dataset.name);
    document.getElementById("alpha-now").textContent = answers[index].dataset.shown;
  }
}

function readable(text) {
  if (text === "") return "a part of a character";
  if (text.trim() === "") return text.includes("\n") ? "a new line" : "a space";
  if (/^\ufffd+$/.test(text)) return "a part of a character";
  return `“${text.trim()}”`;
}

function chance(logprob) {
  if (logprob === "") return "not a number";
  const p = Math.exp(Number(logprob));
  if (p >= 0.001) return `${(100 * p).toFixed(p >= 0.0995 ? 0 : 1)} %`;
  const odds = Number((1 / p).toPrecision(2));
  return odds < 1e9 ? `1 in ${odds.toLocaleString("en")}` : "almost none";
}

function pullSentence(pull) {
  const factor = Math.exp(Math.abs(pull));
  const times = factor < 1e4 ? Number(factor.toPrecision(2)).toLocaleString("en") : "over 10,000";
  if (factor < 1.05) return "Guidance left its probability as it was.";
  return `Guidance made it ${times} times ${pull > 0 ? "more" : "less"} likely.`;
}

/** The strength at a token, and how unsure the base was there. */
function strengthSentence(strength, entropy) {
  const alpha = strength === "" ? "Strength not a number" : `Strength α = ${Number(Number(strength).toFixed(3))}`;
  if (entropy === "") return `${alpha}.`;
  const nats = Number(entropy);
  const tokens = Number(Math.exp(nats).toPrecision(2)).toLocaleString("en");
  return `${alpha}; the base’s entropy ${nats.toFixed(2)} nats, as of ${tokens} equally likely tokens.`;
}

function showTip(token) {
  hideTip();
  const told = token.dataset;
  const said = readable(token.textContent);
  document.getElementById("tip-base").textContent = token.classList.contains("flipped")
    ? `Instead of ${said} the base would have said ${readable(told.baseText)}.` : `The base would have said ${said} too.`;
  document.getElementById("tip-pull").textContent = pullSentence(Number(told.pull));
  document.getElementById("tip-strength").textContent = strengthSentence(told.strength, told.entropy);
  for (const name of ["base", "expert", "amateur", "guided"]) {
    tip.querySelector(`[data-number=${name}]`).textContent = chance(told[name]);
    tip.querySelector(`[data-bar=${name}]`).style.width = told[name] === "" ? 0 : `${100 * Math.exp(told[name])}%`;
  }
  shown = token;
  token.classList.add("here");
  token.setAttribute("aria-describedby", "tip");
  const answer = token.closest(".answer");
  const all = tokensOf(answer);
  for (const cursor of answer.querySelectorAll(".cursor")) {
    cursor.style.left = `${(100 * (all.indexOf(token) + 0.5)) / all.length}%`;
    cursor.hidden = false;
  }
}

function place(rect) {
  tip.hidden = false;
  const { offsetWidth: width, offsetHeight: height } = tip;
  const margin = 8;
  const below = rect.bottom + margin;
  const top = below + height <= innerHeight - margin ? below : rect.top - height - margin;
  tip.style.top = `${Math.max(margin, top)}px`;
  tip.style.left = `${Math.min(Math.max(margin, rect.left), document.documentElement.clientWidth - width - margin)}px`;
}

function hideTip() {
  clearTimeout(leaving);
  tip.hidden = true;
  if (!shown) return;
  shown.classList.remove("here");
  shown.removeAttribute("aria-describedby");
  for (const cursor of shown.closest(".answer").querySelectorAll(".cursor")) cursor.hidden = true;
  shown = null;
}

// Of a token over two lines, the first one.
function explain(token, where = () => token.getClientRects()[0]) {
  showTip(token);
  anchor = where;
  place(anchor());
}

/** Back to the token with the focus, or to none. */
function explainFocused() {
  const focused = document.activeElement.closest(".tokens .token");
  if (focused) explain(focused); else hideTip();
}

// The pointer may move onto the explanation without losing it.
function hideSoon() {
  clearTimeout(leaving);
  leaving = setTimeout(explainFocused, 150);
}

/** The token on the line above (-1) or below (1) that is nearest to the middle of this one. */
function onNextLine(all, from, direction) {
  const middle = (token) => { const r = token.getClientRects()[0]; return { x: (r.left + r.right) / 2, y: (r.top + r.bottom) / 2 }; };
  const here = middle(all[from]);
  const there = all.map((token, index) => ({ index, ...middle(token) }))
    .filter(({ y }) => direction * (y - here.y) > 8);
  if (there.length === 0) return from;
  const next = Math.min(...there.map(({ y }) => Math.abs(y - here.y)));
  const line = there.filter(({ y }) => Math.abs(y - here.y) < next + 4);
  return line.reduce((best, one) => (Math.abs(one.x - here.x) < Math.abs(best.x - here.x) ? one : best)).index;
}

function onKey(event) {
  if (event.key === "Escape") { hideTip(); return; }
  const token = event.target.closest(".tokens .token");
  if (!token || event.ctrlKey || event.metaKey || event.altKey) return;
  const all = tokensOf(token.closest(".answer"));
  const at = all.indexOf(token);
  const to = {
    ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1,
    ArrowDown: () => onNextLine(all, at, 1), ArrowUp: () => onNextLine(all, at, -1), Enter: at, " ": at,
  }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  const index = Math.min(Math.max(typeof to === "function" ? to() : to, 0), all.length - 1);
  if (index === at) explain(token); else all[index].focus();
}

function stepToFlipped(answer, direction) {
  const all = tokensOf(answer);
  const from = all.findIndex((token) => token.tabIndex === 0);
  const flipped = all.map((token, index) => (token.classList.contains("flipped") ? index : -1)).filter((index) => index >= 0);
  const visited = all[from].dataset.visited === "yes";
  const next = direction > 0
    ? flipped.find((index) => index > from || (index === from && !visited)) ?? flipped[0]
    : flipped.findLast((index) => index < from) ?? flipped[flipped.length - 1];
  all[next].focus();
}

for (const answer of answers) {
  const tokens = answer.querySelector(".tokens");
  tokens.addEventListener("focusin", (event) => {
    event.target.dataset.visited = "yes";
    for (const other of tokensOf(answer)) other.tabIndex = other === event.target ? 0 : -1;
    explain(event.target);
  });
  tokens.addEventListener("focusout", (event) => { if (event.target === shown) hideTip(); });
  tokens.addEventListener("pointermove", (event) => {
    const token = event.target.closest(".token");
    if (token && token !== shown && event.pointerType === "mouse" && pointer.moved) explain(token);
  });
  tokens.addEventListener("pointerleave", hideSoon);
  for (const plot of answer.querySelectorAll(".plot")) {
    const point = (event) => {
      const all = tokensOf(answer);
      const frame = plot.getBoundingClientRect();
      const across = (event.clientX - frame.left) / frame.width;
      const index = Math.floor(across * all.length);
      explain(all[Math.min(Math.max(index, 0), all.length - 1)], () => {
        const { left, width, top, bottom } = plot.getBoundingClientRect();
        return { left: left + across * width + 12, top, bottom };
      });
    };
    plot.addEventListener("pointermove", (event) => { if (pointer.moved) point(event); });
    plot.addEventListener("click", point);
    plot.addEventListener("pointerleave", hideSoon);
  }
  for (const button of answer.querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => stepToFlipped(answer, Number(button.dataset.step)));
  }
}
tip.addEventListener("pointerenter", () => clearTimeout(leaving));
tip.addEventListener("pointerleave", hideSoon);
document.addEventListener("keydown", onKey);
document.addEventListener("pointermove", (event) => {
  const at = `${event.screenX} ${event.screenY}`;
  pointer = { at, moved: pointer.at !== "" && at !== pointer.at };
}, { capture: true });
document.addEventListener("pointerdown", (event) => { if (!event.target.closest(".tokens, .plot, #tip")) hideTip(); });
for (const change of ["scroll", "resize"]) {
  addEventListener(change, () => { if (shown) place(anchor()); }, { passive: true });
}
if (slider) {
  document.getElementById("strength").hidden = false;
  slider.addEventListener("input", () => showAnswer(Number(slider.value)));
}
showAnswer(slider ? Number(slider.value) : 0);
