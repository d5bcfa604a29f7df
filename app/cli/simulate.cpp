// switchyard simulate: what a cache, an expert capacity, a network or a scheduler would have made of a trace.
#include "app/cli/placement_commands.h"
#include "app/cli/simulation.h"

namespace switchyard {

void add_simulate(CLI::App& app, Cli& cli) {
  auto* noun =
      add_command(app, "simulate", "What a cache, a capacity, a network or a scheduler would have made of a trace.",
                  "  switchyard simulate run.moetrace.h5 cache --policies lru,sch-16,belady --slots 16,32\n"
                  "  switchyard simulate run.moetrace.h5 capacity --factors 1,1.25,2 --fill rank-major\n"
                  "  switchyard simulate run.moetrace.h5 traffic --gpus 8 --nodes 2 --leaves 4 --spines 4\n"
                  "  switchyard simulate run.moetrace.h5 schedule --batch 8");
  const auto trace = std::make_shared<SimulatedTrace>();
  noun->add_option("TRACE", trace->trace, "A *.moetrace.h5 file")->required();
  noun->require_subcommand(1);
  add_simulate_cache(*noun, cli, trace);
  add_simulate_capacity(*noun, cli, trace);
  add_simulate_traffic(*noun, cli, trace);
  add_simulate_schedule(*noun, cli, trace);
}

}  // namespace switchyard
