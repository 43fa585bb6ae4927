Redis behind Sentinel: `redis.url = "sentinel://host,host,host/service"` follows the master through a failover; an example is in `conf/redis-sentinel/`.
