On a full disk bodies of overwritten and deleted files go before their grace is over, so that deleting makes room within seconds.
