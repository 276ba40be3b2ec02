"""How much of a reconstruction was invented: measures of one idea each, and the report that gathers them."""
