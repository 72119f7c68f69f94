// Passkeys: asks the device when a form with `data-passkey` is sent, and sends its answer along.
// Without this script people log in with their password.
"use strict";
(() => {
  if (!window.PublicKeyCredential || !navigator.credentials) return;

  const bytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
  const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

  async function make(data) {
    const made = await navigator.credentials.create({ publicKey: {
      challenge: bytes(data.challenge),
      rp: { id: data.rp, name: data.panel },
      user: { id: bytes(data.user), name: data.email, displayName: data.name },
      pubKeyCredParams: [-8, -7, -257].map((alg) => ({ type: "public-key", alg })),
      excludeCredentials: data.known.split(" ").filter(Boolean).map((id) => ({ type: "public-key", id: bytes(id) })),
      authenticatorSelection: { residentKey: "required", userVerification: "required" },
      attestation: "none",
    } });
    const said = made.response;
    return { id: text(made.rawId), client: text(said.clientDataJSON), authenticator: text(said.getAuthenticatorData()), key: text(said.getPublicKey()), algorithm: said.getPublicKeyAlgorithm() };
  }

  async function use(data) {
    const used = await navigator.credentials.get({ publicKey: {
      challenge: bytes(data.challenge), rpId: data.rp, userVerification: "required",
    } });
    const said = used.response;
    return { id: text(used.rawId), client: text(said.clientDataJSON), authenticator: text(said.authenticatorData), signature: text(said.signature), person: said.userHandle ? text(said.userHandle) : "" };
  }

  // By the document, not by each form: a page that is alive may put another form in its place.
  document.documentElement.classList.add("passkeys");
  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.matches("form[data-passkey]")) return;
    event.preventDefault();
    const says = form.querySelector("[role=status]");
    says.textContent = "";
    try {
      const answer = await (form.dataset.passkey === "make" ? make : use)(form.dataset);
      for (const [name, value] of Object.entries(answer)) {
        const field = document.createElement("input");
        Object.assign(field, { type: "hidden", name, value });
        form.append(field);
      }
      form.submit();
    } catch (error) {
      says.textContent = error.name === "InvalidStateError" ? "This device has a passkey here already." : "Your device made no passkey, or you stopped it.";
    }
  });
})();
