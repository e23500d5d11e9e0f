// What a person does: photos come in, are worked on one after the other, and answers go out.

const answers = []; // of all photos, for the file that is saved
let classify = null; // once the model is loaded
let waiting = Promise.resolve(); // photos are worked on one after the other
let [done, total, round] = [0, 0, 0]; // a round ends where all photos are removed

function say(text) {
  at("status").textContent = text;
}

/** Take photos: `open` of each returns an ImageBitmap. */
function take(photos) {
  total += photos.length;
  for (const { name, open } of photos) {
    const [card, own] = [addCard(name), round];
    waiting = waiting.then(async () => {
      if (own !== round) return;
      say(`${done} of ${total} photos done`);
      await new Promise((next) => setTimeout(next)); // let the browser draw
      try {
        const row = await answerPhoto(card, name, open);
        if (own === round) answers.push(row);
      } catch (error) {
        showFailure(card, error.message);
        if (own === round) answers.push(failureOf(name, error.message));
      }
      if (own !== round) return;
      done += 1;
      for (const id of ["save", "clear"]) at(id).disabled = false;
      if (done === total) say(summary());
    });
  }
}

async function answerPhoto(card, name, open) {
  const started = performance.now();
  const bitmap = await open();
  try {
    const pixels = pixelsOf(bitmap);
    const decoded = performance.now();
    const found = await classify(pixels);
    const inference = performance.now() - decoded;
    const largest = Math.max(...found.probabilities);
    // As ShippedModel does it: the threshold in float32, which the probabilities are.
    const unsure = facts.abstainBelow !== null && largest < Math.fround(facts.abstainBelow);
    const novel = facts.novelAbove !== null && found.novelty !== null && found.novelty > facts.novelAbove;
    const answer = { ...found, unsure, novel, decoding: decoded - started, inference };
    showAnswer(card, bitmap, answer);
    return rowOf(name, answer);
  } finally {
    bitmap.close();
  }
}

const rounded = (value) => Number(value.toFixed(6)); // float32 has seven digits

/** What is saved of a photo: a row of `regraft predict --format jsonl`, with all classes and its milliseconds. */
function rowOf(name, { probabilities, novelty, unsure, novel, decoding, inference }) {
  const top = [...probabilities].map((share, index) => ({ class: facts.classes[index], probability: rounded(share) }));
  top.sort((a, b) => b.probability - a.probability);
  return {
    path: name,
    class: unsure ? null : top[0].class,
    probability: top[0].probability,
    unsure,
    novelty: novelty === null ? null : rounded(novelty),
    novel,
    top,
    error: null,
    milliseconds: { decoding: rounded(decoding), inference: rounded(inference) },
  };
}

function failureOf(path, error) {
  return { path, class: null, probability: null, unsure: null, novelty: null, novel: null, top: [], error };
}

function summary() {
  const times = answers.filter((answer) => answer.milliseconds).map((answer) => answer.milliseconds.inference);
  const failed = answers.length - times.length;
  const middle = times.sort((a, b) => a - b)[Math.floor(times.length / 2)];
  const read = times.length ? `, classified in ${milliseconds(middle)} (median)` : "";
  return `${total} ${total === 1 ? "photo" : "photos"} done${read}${failed ? `, ${failed} not readable` : ""}`;
}

function removeAll() {
  round += 1;
  [done, total, answers.length] = [0, 0, 0];
  at("photos").replaceChildren();
  for (const id of ["save", "clear"]) at(id).disabled = true;
  say("Ready");
}

function save() {
  const lines = answers.map((answer) => `${JSON.stringify(answer)}\n`);
  const link = element("a");
  link.href = URL.createObjectURL(new Blob(lines));
  link.download = "answers.jsonl";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// Where photos come from.

const takeFiles = (files) => take([...files].map((file) => ({ name: file.name, open: () => openPhoto(file) })));

function listen() {
  at("files").onchange = ({ target }) => {
    takeFiles(target.files);
    target.value = ""; // the same file may be chosen again
  };
  document.ondragover = (event) => {
    event.preventDefault(); // or the browser would leave this page for the photo
    at("drop").classList.add("over");
  };
  document.ondragleave = (event) => event.relatedTarget === null && at("drop").classList.remove("over");
  document.ondrop = (event) => {
    event.preventDefault();
    at("drop").classList.remove("over");
    takeFiles(event.dataTransfer.files);
  };
  document.onpaste = (event) => takeFiles(event.clipboardData.files);
  at("looked").onchange = ({ target }) => {
    at("photos").classList.toggle("plain", !target.checked);
    at("hint").hidden = !target.checked;
  };
  at("clear").onclick = removeAll;
  at("save").onclick = save;
  at("camera").onclick = startCamera;
  at("stop").onclick = stopCamera;
  at("shoot").onclick = shoot;
}

let shots = 0;

async function startCamera() {
  try {
    if (!navigator.mediaDevices) throw new Error("this browser gives none to pages on disk");
    const video = { facingMode: "environment", width: { ideal: 1280 } };
    at("video").srcObject = await navigator.mediaDevices.getUserMedia({ video });
    await at("video").play();
    at("viewfinder").hidden = false;
    at("shoot").focus();
  } catch (error) {
    say(`No camera: ${error.message}`);
  }
}

function stopCamera() {
  for (const track of at("video").srcObject?.getTracks() ?? []) track.stop();
  at("video").srcObject = null;
  at("viewfinder").hidden = true;
  at("camera").focus();
}

async function shoot() {
  const shot = await createImageBitmap(at("video"));
  take([{ name: `Camera ${(shots += 1)}`, open: async () => shot }]);
}

// The page itself.

function describe() {
  for (const [term, text] of facts.about) at("facts").append(element("dt", "", term), element("dd", "", text));
  if (!facts.outputs.includes("maps")) {
    at("looked").parentElement.hidden = at("hint").hidden = true;
    at("photos").classList.add("plain");
  }
}

async function start() {
  describe();
  listen();
  const started = performance.now();
  waiting = loadModel(facts.outputs).then(
    (loaded) => {
      classify = loaded;
      say(total ? "" : `Ready: the model was loaded in ${milliseconds(performance.now() - started)}`);
    },
    (error) => {
      classify = () => Promise.reject(new Error("The model is not loaded."));
      say(`The model cannot be loaded in this browser: ${error.message}`);
    },
  );
}

start();
