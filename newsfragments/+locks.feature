Files can be locked (`LOCK`, `UNLOCK` of `/storage/…`): while a lock lives only writes that name its token in `If` change the file, and a slow upload keeps its lock alive.
