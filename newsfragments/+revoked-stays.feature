A grant that is revoked stays revoked where its account moves to.
