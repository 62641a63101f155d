require "capistrano/scm/plugin"

# Deploys a file that was built before: uploaded to every host, unpacked there as the release. Capistrano itself only
# fetches sources; this is what teams and gems for it do instead.
class Artifact < Capistrano::SCM::Plugin
  def set_defaults
    set_if_empty :artifact, ENV["BENCH_ARTIFACT"]
  end

  def register_hooks
    after "deploy:new_release_path", "artifact:create_release"
  end

  def define_tasks
    namespace :artifact do
      task :create_release do
        on release_roles(:all) do
          archive = "/tmp/capistrano-#{File.basename(fetch(:artifact))}"
          upload! fetch(:artifact), archive
          execute :mkdir, "-p", release_path
          execute :tar, "-xzf", archive, "-C", release_path
          execute :rm, archive
        end
      end
    end
  end
end
