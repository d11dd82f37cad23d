// An open page says when its small requests are not answered, and stops saying so when they are again.
{
  const lost = (is) => { const told = document.getElementById("lost"); if (told.hidden === is) told.hidden = !is; };
  document.addEventListener("htmx:error", () => lost(true));
  document.addEventListener("htmx:response:error", () => lost(true));
  document.addEventListener("htmx:after:request", (event) => { if (event.detail.ctx.response?.raw.ok) lost(false); });
}
