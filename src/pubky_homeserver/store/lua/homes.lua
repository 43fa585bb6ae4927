-- Where an account lived before: keys of homeservers, a blank after each, the newest last.

local HOMES = 20  -- how many are remembered

-- The list with one more homeserver, if that is new.
local function with_home(homes, key)
  homes = homes or ''
  if not key or (' ' .. homes):find(' ' .. key .. ' ', 1, true) then
    return homes
  end
  local count = select(2, homes:gsub(' ', ''))
  return (count < HOMES and homes or homes:match('^%S+ (.*)$')) .. key .. ' '
end
