// Runs kernelnotes itself in the reader's browser. Nothing is loaded before the first click; then Pyodide's files and our
// packages come as scripts (tools/page_python.py), because a page opened from a folder may load scripts but fetch nothing.
(() => {
  "use strict";
  const folder = new URL("python/", document.currentScript.src).href;
  const PARTS = ["pyodide.mjs", "pyodide.asm.mjs", "lock.json", "packages.zip", "python_stdlib.zip", "pyodide.asm.wasm"];
  const NOWHERE = "https://python.invalid/"; // where Pyodide believes its files are; never asked
  const waiting = new Map();

  globalThis.knPart = (name, text) => waiting.get(name)(text);

  const part = async (name) => {
    const text = await new Promise((resolve, reject) => {
      waiting.set(name, resolve);
      const script = document.createElement("script");
      script.src = folder + name + ".js";
      script.onerror = () => reject(new Error(`${name} cannot be loaded; is the folder _static/python complete?`));
      script.onload = () => script.remove();
      document.head.append(script);
    });
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  };

  const module = (bytes) => {
    const url = URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }));
    return import(url).finally(() => URL.revokeObjectURL(url));
  };

  const breathe = () => new Promise((done) => setTimeout(done, 30)); // so that the browser shows what was written

  async function start(say) {
    const files = {};
    for (const [k, name] of PARTS.entries()) {
      say(`Loading Python: part ${k + 1} of ${PARTS.length} ...`, k / (PARTS.length + 2));
      files[name] = await part(name);
    }
    say("Starting Python ...", PARTS.length / (PARTS.length + 2));
    await breathe();
    const fetched = globalThis.fetch;
    const types = { wasm: "application/wasm", zip: "application/zip" };
    globalThis.fetch = (what, ...rest) => {
      const url = String(what instanceof Request ? what.url : what), name = url.slice(NOWHERE.length);
      if (!url.startsWith(NOWHERE)) return fetched(what, ...rest);
      const known = { headers: { "Content-Type": types[name.split(".").pop()] } };
      return Promise.resolve(name in files ? new Response(files[name], known) : new Response("", { status: 404 }));
    };
    try {
      const { loadPyodide } = await module(files["pyodide.mjs"]);
      const python = await loadPyodide({
        indexURL: NOWHERE,
        createPyodideModule: (await module(files["pyodide.asm.mjs"])).default,
        lockFileContents: JSON.parse(new TextDecoder().decode(files["lock.json"])),
      });
      say("Loading kernelnotes ...", (PARTS.length + 1) / (PARTS.length + 2));
      await breathe();
      python.unpackArchive(files["packages.zip"], "zip", { extractDir: "/home/pyodide" });
      python.runPython("import json\nfrom kernelnotes import playground");
      return (name, ...given) => {
        python.globals.set("given", JSON.stringify(given));
        return JSON.parse(python.runPython(`json.dumps(playground.${name}(*json.loads(given)))`));
      };
    } finally {
      globalThis.fetch = fetched;
    }
  }

  let engine; // of the whole page: a promise of what `start` gives

  function pad(form) {
    const button = form.querySelector("button[type=submit]"), status = form.querySelector(".kn-status");
    const bar = form.querySelector("progress"), output = form.parentElement.querySelector(".kn-pad-out");
    const source = form.querySelector("textarea"), rest = form.querySelector(".kn-pad-next");
    let ran = 0, timer;

    const say = (words, share) => {
      status.textContent = words;
      bar.hidden = share === undefined;
      if (share !== undefined) bar.value = share;
    };

    const select = (line, column) => {
      const lines = source.value.split("\n");
      if (!(line >= 1 && line <= lines.length)) return;
      const from = lines.slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0);
      source.focus();
      source.setSelectionRange(from, from + lines[line - 1].length);
    };

    const given = () => {
      const data = new FormData(form);
      return form.dataset.call === "struct"
        ? [data.get("source"), data.getAll("abi")]
        : [data.get("source"), Number(data.get("memory")), data.get("rules")];
    };

    const show = (made) => {
      output.classList.toggle("kn-old", Boolean(made.error));
      if (made.error) {
        say(made.line ? `Line ${made.line}, column ${made.column}: ${made.error}` : made.error);
        form.dataset.state = "error";
        return;
      }
      output.innerHTML = made.html; // written by our own package, which escapes what it was given
      form.dataset.state = "done";
      say(`Computed by kernelnotes in this browser (model). ${form.dataset.hint || ""}`);
      if (rest) {
        for (const row of [...output.querySelectorAll("tbody tr")].slice(1)) row.hidden = true;
        output.querySelector(".kn-counts").hidden = true;
        rest.hidden = false;
      }
    };

    const run = async (asked) => {
      const mine = ++ran;
      button.disabled = true;
      form.dataset.state = "busy";
      try {
        let call;
        try {
          engine ??= start(say);
          call = await engine;
        } catch (error) {
          engine = undefined; // another click tries again
          throw new Error(`Python did not start: ${error.message}`);
        }
        if (mine !== ran) return;
        const made = call(form.dataset.call, ...given());
        show(made);
        if (asked && made.line) select(made.line, made.column);
      } catch (error) {
        form.dataset.state = "failed";
        say(error.message);
      } finally {
        button.disabled = false;
        button.textContent = form.dataset.again;
      }
    };

    form.addEventListener("submit", (event) => {
      event.preventDefault();
      run(true);
    });
    form.addEventListener("input", () => {
      if (!engine) return;
      clearTimeout(timer);
      timer = setTimeout(() => run(false), 400);
    });
    rest?.addEventListener("click", (event) => {
      const hidden = [...output.querySelectorAll("tbody tr[hidden]")];
      const now = event.target.value === "all" ? hidden : hidden.slice(0, 1);
      for (const row of now) row.hidden = false;
      if (now.length === hidden.length) output.querySelector(".kn-counts").hidden = false;
    });
    form.hidden = false;
  }

  const begin = () => document.querySelectorAll("form.kn-pad").forEach(pad);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
