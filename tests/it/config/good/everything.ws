wss://push.example.net/v1?token=canary-token-of-a-url
