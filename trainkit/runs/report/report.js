"use strict";
for (const figure of document.querySelectorAll("figure.picture")) {
  const images = figure.querySelectorAll("img"), slider = figure.querySelector("input"), said = figure.querySelector("output");
  if (!slider) continue;
  slider.hidden = false;
  slider.addEventListener("input", () => {
    images.forEach((image, number) => { image.hidden = number !== Number(slider.value); });
    said.textContent = images[Number(slider.value)].dataset.when;
  });
}
