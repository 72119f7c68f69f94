// Files and logs: how far an upload is, and a log as it is written. Without this script uploads
// are sent as any form and the log is read again by its link.
"use strict";
(() => {
  const size = (n) => n < 1e6 ? `${Math.round(n / 1e3)} kB` : `${(n / 1e6).toFixed(1)} MB`;

  for (const form of document.querySelectorAll("form[data-upload]")) {
    const shown = form.querySelector(".upload"), bar = shown.querySelector("progress"), words = shown.querySelector("span");
    const button = form.querySelector("button"), input = form.querySelector("input[type=file]");
    const failed = (text) => { button.disabled = false; bar.hidden = true; words.textContent = text; };

    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const request = new XMLHttpRequest();
      // Fields go in the form's order: its own secret first, then where to, then the files.
      const data = new FormData(form);
      shown.hidden = false; bar.hidden = false; bar.value = 0; button.disabled = true;
      request.upload.addEventListener("progress", (at) => {
        if (!at.lengthComputable) return;
        bar.value = at.loaded / at.total * 100;
        words.textContent = at.loaded < at.total ? `${size(at.loaded)} of ${size(at.total)}` : "Being written to disk …";
      });
      request.addEventListener("load", () => {
        if (request.status === 204) { location.reload(); return; }
        const page = new DOMParser().parseFromString(request.responseText, "text/html");
        const why = [...page.querySelectorAll("[role=alert] p")].map((p) => p.textContent).join(" ");
        failed(why || "It was refused.");
      });
      request.addEventListener("error", () => failed("The line broke. Send it again."));
      request.open("POST", form.action);
      request.setRequestHeader("x-panel", "upload");
      request.send(data);
    });

    const card = form.closest(".card");
    card.addEventListener("dragover", (event) => event.preventDefault());
    card.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files.length) { input.files = event.dataTransfer.files; form.requestSubmit(); }
    });
  }

  const tail = document.getElementById("tail");
  if (!tail) return;
  const MOST = 2000, state = document.getElementById("tail-state"), hold = document.getElementById("tail-hold");
  let held = false, kept = [], fresh = tail.textContent.trim() === "No lines.";
  // What would hide or turn the text round is written out, as on the page itself.
  const strange = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;
  const plain = (line) => line.replace(strange, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);

  function show(lines) {
    const atEnd = tail.scrollTop + tail.clientHeight >= tail.scrollHeight - 8;
    if (fresh) { tail.textContent = ""; fresh = false; }
    const all = tail.textContent.split("\n").filter((line) => line !== "").concat(lines);
    tail.textContent = all.slice(-MOST).join("\n") + "\n";
    if (atEnd) tail.scrollTop = tail.scrollHeight;
  }

  hold.hidden = false;
  hold.addEventListener("click", () => {
    held = !held;
    hold.setAttribute("aria-pressed", String(held));
    hold.textContent = held ? "Go on" : "Hold";
    state.textContent = held ? "held" : "live";
    if (!held && kept.length) { show(kept); kept = []; }
  });
  tail.scrollTop = tail.scrollHeight;

  const source = new EventSource(tail.dataset.stream);
  source.addEventListener("open", () => { if (!held) state.textContent = "live"; });
  source.addEventListener("error", () => { state.textContent = source.readyState === 2 ? "not live: reload the page" : "the line broke; it comes again"; });
  source.addEventListener("trouble", (event) => { state.textContent = JSON.parse(event.data).detail; });
  source.addEventListener("lines", (event) => {
    const news = JSON.parse(event.data);
    const lines = (news.skipped ? ["… lines were passed over …"] : []).concat(news.lines.map(plain));
    if (held) kept = kept.concat(lines).slice(-MOST); else show(lines);
  });
})();
