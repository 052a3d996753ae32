/* Search without a server. A browser starts no Worker from file://, so there the search's script runs in a hidden
   frame instead. The theme looks for a file and for a class of this name. */
(() => {
  const START = `
    window.postMessage = data => parent.postMessage(data, "*");
    window.importScripts = (...addresses) => addresses.reduce((before, address) => before.then(() =>
      new Promise((loaded, failed) => {
        const script = document.createElement("script");
        script.src = address;
        script.onload = loaded;
        script.onerror = failed;
        document.body.append(script);
      })), Promise.resolve());`;

  class IFrameWorker extends EventTarget {
    constructor(address) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const page = this.frame.contentDocument;
      this.ready = new Promise(resolve => this.frame.addEventListener("load", resolve, {once: true}));
      page.open();
      page.write("<!doctype html><title>search</title><body><script>" + START + "<\/script><script src=\"" +
                 encodeURI(decodeURI(address)) + "\"><\/script></body>");
      page.close();
      this.receive = event => {
        if (event.source !== this.frame.contentWindow) return;
        const message = new MessageEvent("message", {data: event.data});
        this.dispatchEvent(message);
        if (this.onmessage) this.onmessage(message);
      };
      addEventListener("message", this.receive);
    }

    postMessage(data) {
      this.ready.then(() => {
        const inside = this.frame.contentWindow;
        inside.dispatchEvent(new inside.MessageEvent("message", {data: structuredClone(data)}));
      });
    }

    terminate() {
      removeEventListener("message", this.receive);
      this.frame.remove();
    }
  }

  window.IFrameWorker = IFrameWorker;
  if (location.protocol === "file:") window.Worker = IFrameWorker;
})();
