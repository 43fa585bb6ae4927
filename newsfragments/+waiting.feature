On a terminal `peer test`, `mirror open` and `conflicts apply` show that they wait; Ctrl-C gives the terminal back as it was.
