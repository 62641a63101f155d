# Everything that is not set here is as Capistrano has it: parallel on all hosts, connections that are used again.
lock "~> 3.17"

set :application, "capistrano"
set :deploy_to, "/srv/capistrano"
set :keep_releases, 5
set :linked_files, %w[.env]
set :linked_dirs, %w[uploads]
set :format_options, log_file: ENV.fetch("BENCH_LOG"), color: false

# The usual way with PM2.
namespace :deploy do
  task :restart do
    on release_roles(:all) do
      with pm2_home: "/home/#{host.user}/.pm2-capistrano" do
        execute :pm2, "startOrReload", shared_path.join("ecosystem.config.js")
      end
    end
  end
  after :publishing, :restart
end
