"""Canvas, heat-maps, scales and labels: how anything is drawn. It knows no subject."""
