// See adapt_input.h.
#include "app/cli/adapt_input.h"

#include "app/cli/help.h"

namespace switchyard {

void AdaptInputOptions::add_options(CLI::App& app, const std::string& method_option, const std::string& prefix) {
  method_given_ = app.add_option(method_option, method_,
                                 "rewire (exact gradient), spsa (two forwards an iteration), usage-bias (sign rule), ema (centres that follow their tokens)")
                      ->check(CLI::IsMember({"rewire", "spsa", "usage-bias", "ema"}))
                      ->type_name("NAME");
  app.add_option(prefix + "steps", options_.steps, prefix == "--" ? "Steps" : "Iterations of each step")->check(CLI::Range(1, 100000))->capture_default_str();
  app.add_option(prefix + "lr", options_.lr, "Rate of Adam; gamma of usage-bias (negative balances)")->check(CLI::Range(-10.0, 10.0))->capture_default_str();
  app.add_option(prefix + "eta", options_.eta, "Of ema: share of the new mean")->check(CLI::Range(0.0, 1.0))->capture_default_str();
  app.add_option(prefix + "layer-share", options_.layer_share, "Share of the layers that are adapted, those of largest C; not of ema")->check(CLI::Range(0.0, 1.0))->capture_default_str();
  app.add_flag(prefix + "least-uncertain", options_.least_uncertain, "The layers of smallest C instead");
  app.add_option(prefix + "layers", options_.layers, "Layers that may be adapted: 1,2,5 (all)")->delimiter(',')->type_name("LIST");
  app.add_option(prefix + "max-norm", options_.max_norm, "Bound of a layer's bias; 0: none")->check(CLI::Range(0.0, 1e6))->capture_default_str();
  app.add_option(prefix + "loss-tokens", options_.loss_tokens, "The loss counts the last so many tokens; 0: all")->check(CLI::Range(0, 1 << 24))->capture_default_str();
  app.add_option(prefix + "perturbation", options_.perturbation, "c of spsa")->check(CLI::Range(1e-6, 10.0))->capture_default_str();
  app.add_option(prefix + "seed", options_.seed, "Of spsa")->capture_default_str();
}

AdaptOptions AdaptInputOptions::options() const {
  AdaptOptions out = options_;
  for (const AdaptMethod method : {AdaptMethod::kRewire, AdaptMethod::kSpsa, AdaptMethod::kUsageBias, AdaptMethod::kEma})
    if (name(method) == method_) out.method = method;
  return out;
}

Document json_of(const AdaptStep& step) {
  return {{"loss", step.loss}, {"rerouted", step.rerouted}, {"path_distance", step.path_distance}, {"norms", step.norms}};
}

}  // namespace switchyard
