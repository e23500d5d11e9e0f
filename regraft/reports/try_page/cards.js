// What a person sees of a photo. Names of files and classes become text, never HTML.

const facts = JSON.parse(document.getElementById("page-facts").textContent);
const at = (id) => document.getElementById(id);

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const percent = (share) => `${(100 * share).toFixed(1)}%`;
const milliseconds = (time) => `${time < 10 ? time.toFixed(1) : Math.round(time)}\u00a0ms`;

function addCard(name) {
  const card = element("li", "photo");
  const text = card.appendChild(element("div", "text"));
  text.appendChild(element("p", "name")).appendChild(element("bdi", "", name));
  at("photos").appendChild(card);
  return card;
}

function showFailure(card, reason) {
  card.classList.add("failed");
  card.querySelector(".text").appendChild(element("p", "", reason));
}

function showAnswer(card, bitmap, answer) {
  const text = card.querySelector(".text");
  const order = [...answer.probabilities.keys()].sort((a, b) => answer.probabilities[b] - answer.probabilities[a]);
  const best = element("bdi", "", facts.classes[order[0]]);
  const line = text.appendChild(element("p", "answer"));
  line.append(...(answer.unsure ? ["unsure, perhaps ", best] : [best]));
  const notes = text.appendChild(element("p", "notes"));
  if (answer.unsure) notes.appendChild(element("span", "note", `below ${percent(facts.abstainBelow)}`));
  if (answer.novel) notes.appendChild(element("span", "note", "unlike the photos it was trained on"));
  const picture = card.insertBefore(element("div", "picture"), text);
  drawThumbnail(picture, bitmap, `${facts.classes[order[0]]}, ${percent(answer.probabilities[order[0]])}`);
  const overlay = answer.maps && picture.appendChild(element("canvas", "heat"));
  const size = { width: bitmap.width, height: bitmap.height }; // a closed bitmap has none
  const bars = text.appendChild(element("div", "bars"));
  for (const index of order.slice(0, 5)) {
    const bar = bars.appendChild(barOf(index, answer));
    bar.onclick = () => {
      for (const other of bars.children) other.setAttribute("aria-pressed", other === bar);
      drawHeat(overlay, size, heatOf(answer.maps, index));
    };
  }
  if (overlay) bars.firstChild.onclick();
  const novelty = answer.novelty === null ? "" : `, novelty ${answer.novelty.toFixed(3)}`;
  const times = `decoded in ${milliseconds(answer.decoding)}, classified in ${milliseconds(answer.inference)}`;
  text.appendChild(element("p", "times", `${size.width} x ${size.height}, ${times}${novelty}`));
}

function barOf(index, answer) {
  const bar = element("button", "bar");
  bar.type = "button";
  bar.disabled = !answer.maps;
  if (answer.maps) bar.title = "Show what speaks for this class";
  bar.appendChild(element("span", "label")).appendChild(element("bdi", "", facts.classes[index]));
  bar.appendChild(element("span", "share", percent(answer.probabilities[index])));
  const fill = bar.appendChild(element("span", "track")).appendChild(element("span", "fill"));
  fill.style.width = `${100 * answer.probabilities[index]}%`;
  return bar;
}

const THUMBNAIL = 640; // pixels of the longer side

function sizeOf(bitmap) {
  const scale = Math.min(1, THUMBNAIL / Math.max(bitmap.width, bitmap.height));
  return [bitmap.width, bitmap.height].map((length) => Math.max(1, Math.round(length * scale)));
}

function drawThumbnail(picture, bitmap, description) {
  const canvas = picture.appendChild(element("canvas"));
  [canvas.width, canvas.height] = sizeOf(bitmap);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", description);
  const context = canvas.getContext("2d");
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
}

/** Colour what speaks for the class, and darken what lies beside the square that the network sees. */
function drawHeat(canvas, size, heat) {
  [canvas.width, canvas.height] = sizeOf(size);
  const { rows, columns } = heat;
  const small = new OffscreenCanvas(columns, rows);
  const pixels = new ImageData(columns, rows);
  heat.values.forEach((value, index) => pixels.data.set([255, 80, 0, Math.round(200 * value)], 4 * index));
  small.getContext("2d").putImageData(pixels, 0, 0);
  const side = facts.cropFraction * Math.min(canvas.width, canvas.height);
  const [left, top] = [(canvas.width - side) / 2, (canvas.height - side) / 2];
  const context = canvas.getContext("2d");
  context.fillStyle = "rgb(0 0 0 / 60%)";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.clearRect(left, top, side, side);
  context.drawImage(small, left, top, side, side);
}
