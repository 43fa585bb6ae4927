Signing out, or revoking a grant, ends the private event streams that were opened with it, in every process.
