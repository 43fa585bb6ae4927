-- uses: account packed logging
-- Events of a log above an id. Returns what XRANGE answers, and entries as `logging.lua` says.
-- KEYS  log, entries
-- ARGV  bound where reading begins (as XRANGE wants it), limit (at most 500)
return {logged(KEYS[1], KEYS[2], ARGV[1], ARGV[2])}
