"""Published rules that mend finished predictions; nothing here runs unless it is asked for."""
