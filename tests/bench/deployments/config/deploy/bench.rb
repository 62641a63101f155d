ENV.fetch("BENCH_HOSTS").split.each { |address| server address, user: "admin", roles: %w[app] }

set :ssh_options, keys: [ENV.fetch("BENCH_KEY")], keys_only: true, forward_agent: false, auth_methods: %w[publickey],
                  user_known_hosts_file: ENV.fetch("BENCH_KNOWN_HOSTS"), verify_host_key: :always
