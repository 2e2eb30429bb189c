"""Drawing tools that do not depend on what is drawn: canvas, heat maps, color scales, labels, Markdown tables."""
