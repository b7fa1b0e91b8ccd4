"""What the API server looks after by itself, beside answering: cluster IPs, the default service range, flow schemas."""
