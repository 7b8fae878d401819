// The status line: how long the token still lives, and since when there is this one.

const line = document.getElementById("life");
const text = document.getElementById("life-text");
const bar = document.getElementById("life-left");
const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit", second: "2-digit" });

let timer = 0;

// `left` and `lifetime` are seconds, by the server's clock.
export function show({ left, lifetime }, { refreshed }) {
  const ends = Date.now() + left * 1000;
  const since = clock.format(new Date(ends - lifetime * 1000));
  const draw = () => {
    const seconds = Math.max(0, Math.ceil((ends - Date.now()) / 1000));
    text.textContent = `Token good for ${seconds} s · ${refreshed ? "refreshed" : "since"} ${since}`;
    bar.max = lifetime;
    bar.value = seconds;
  };
  clearInterval(timer);
  timer = setInterval(draw, 1000);
  draw();
  line.hidden = false;
  line.dataset.refreshed = String(refreshed);
}

export function forget() {
  clearInterval(timer);
  line.hidden = true;
  text.replaceChildren();
}
