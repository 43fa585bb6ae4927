-- uses: signing ending
-- Remove some of an account's sessions and bearers that count no more. Returns where to go on, as `remove_ended` does.
-- KEYS  the account's sessions, its grants
-- ARGV  place among the sessions, place among the grants, then what `remove_ended` needs
return {remove_ended(KEYS[1], KEYS[2], {unpack(ARGV, 3, 7)}, ARGV[1], tonumber(ARGV[2]))}
