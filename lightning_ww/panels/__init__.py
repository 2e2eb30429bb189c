"""How a report looks. Nothing here measures, and nothing here knows Lightning."""
