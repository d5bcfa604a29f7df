#include "engine/plugin_host/gate.h"

#include <cmath>
#include <cstdlib>

#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/plugin_host/environment.h"

namespace switchyard {

int plugin_budget() {
  const char* set = std::getenv("SWITCHYARD_PLUGIN_BUDGET_US");
  const long micros = set ? std::strtol(set, nullptr, 10) : 0;
  return micros > 0 ? int(micros) : 50;
}

Result<std::shared_ptr<PluginGate>> PluginGate::make(std::shared_ptr<Plugin> plugin, const Contribution& contribution,
                                                     std::vector<double> parameters, Breadcrumbs& crumbs) {
  std::shared_ptr<PluginGate> out(new PluginGate);
  SY_TRY(out->code_, plugin->code(crumbs));
  if (contribution.kind == PluginKind::kEdit) {
    SY_TRY(out->edit_, out->code_->edit(contribution.id));
  } else {
    SY_TRY(out->scheme_, out->code_->scheme(contribution.id));
    if (out->scheme_.device_source) out->device_source_ = out->scheme_.device_source;
  }
  out->plugin_ = std::move(plugin);
  out->title_ = contribution.id;
  out->max_slots_ = contribution.max_slots;
  out->parameters_ = std::move(parameters);
  out->budget_ = std::chrono::microseconds(plugin_budget());
  out->check_calls_ = std::getenv("SWITCHYARD_PLUGIN_CHECK_CALLS") != nullptr;
  return out;
}

sy_scheme_in PluginGate::input_of(const CodeCall& call, uint32_t slots) const {
  token_id_ = call.in.token;
  position_ = call.in.index;
  const bool hidden = reads_input() && !call.in.hidden.empty();
  return {sizeof(sy_scheme_in),
          1,
          uint32_t(call.logits.size()),
          uint32_t(call.k),
          slots,
          uint32_t(call.layer),
          uint32_t(call.in.row),
          uint32_t(call.in.together > 1 ? SY_PHASE_TOGETHER : SY_PHASE_ALONE),
          call.in.sequence,
          uint32_t(parameters_.size()),
          parameters_.data(),
          call.logits.data(),
          &token_id_,
          &position_,
          hidden ? call.in.hidden.data() : nullptr,
          hidden ? uint32_t(call.in.hidden.size()) : 0,
          uint32_t(call.state.size_bytes()),
          call.state.empty() ? nullptr : reinterpret_cast<uint8_t*>(call.state.data())};
}

template <class F>
bool PluginGate::guarded(PluginCall what, const CodeCall& call, F&& work) const {
  std::optional<ProcessEnvironment> before;
  if (check_calls_) before = ProcessEnvironment::now();
  CallContext ctx;
  const auto start = std::chrono::steady_clock::now();
  const bool done = code_->call(what, ctx, [&] { return work(ctx); });
  const auto took = std::chrono::steady_clock::now() - start;
  if (before)
    for (const std::string& one : before->restore())
      plugin_->fault(fmt::format("{}() changed {}; it was put back", name(what), one));
  if (!done) {
    plugin_->fault(fmt::format("{} failed: {}; the model's own router decided", title_,
                               ctx.message[0] ? printable(ctx.message, 300) : "without a reason"));
    return false;
  }
  // One slow call can be the machine's doing, and must not change what is routed.
  slow_ = took > budget_ && call.in.together <= 1 ? slow_ + 1 : 0;
  if (slow_ < kSlowCalls) return true;
  const std::string why =
      fmt::format("{} took more than {} us a layer {} times in a row", title_, budget_.count() / 1000, kSlowCalls);
  plugin_->turn_off(why + ".");
  plugin_->fault(why + "; it is off, the model's own router decides");
  return false;
}

const std::string& PluginGate::device_source() const {
  static const std::string none;
  return plugin_->off() ? none : device_source_;
}

void PluginGate::tell_of_device(const std::string& line, bool fault) const {
  const std::string text = fmt::format("{}: {}", title_, line);
  if (fault) return plugin_->fault(text);
  const std::scoped_lock lock(code_->calls());
  if (told_.insert(text).second && plugin_->tell) plugin_->tell(fmt::format("Plugin {}: {}.", plugin_->id(), text));
}

bool PluginGate::decide(const CodeCall& call, const DecisionSpans& out, int& used) const {
  if (plugin_->off()) return false;
  const std::scoped_lock lock(code_->calls());
  const auto slots_here =
      uint32_t(std::min<size_t>({size_t(slots(int(call.logits.size()), call.k)), call.logits.size(), out.ids.size()}));
  if (id_.size() != slots_here)
    count_.resize(1), id_.resize(slots_here), weight_.resize(slots_here), flags_.resize(slots_here);
  const sy_scheme_in in = input_of(call, slots_here);
  std::fill_n(flags_.data(), slots_here, uint8_t(0));
  *count_.data() = 0;
  sy_scheme_out answer{sizeof(sy_scheme_out), 0, count_.data(), id_.data(), weight_.data(), flags_.data()};
  if (!guarded(PluginCall::kRoute, call,
               [&](CallContext& ctx) { return scheme_.route(code_->self(), &in, &answer, &ctx); }))
    return false;
  if (!count_.whole() || !id_.whole() || !weight_.whole() || !flags_.whole()) {
    plugin_->turn_off(fmt::format("{} wrote past the end of a buffer.", title_));
    plugin_->fault(fmt::format("{} wrote past the end of a buffer; it is off", title_));
    return false;
  }
  answer = {sizeof(sy_scheme_out), 0, count_.data(), id_.data(), weight_.data(), flags_.data()};
  if (std::string wrong = wrong_slots(in, answer); !wrong.empty()) {
    plugin_->fault(fmt::format("{}: {}; the model's own router decided", title_, wrong));
    return false;
  }
  used = int(*count_.data());
  for (int slot = 0; slot < used; ++slot) {
    out.ids[size_t(slot)] = static_cast<ExpertId>(id_.data()[slot]);
    out.weights[size_t(slot)] = weight_.data()[slot];
    out.kinds[size_t(slot)] = flags_.data()[slot] == SY_SLOT_FORCED ? SlotKind::kForced : SlotKind::kRouted;
  }
  return true;
}

bool PluginGate::edit(const CodeCall& call, std::span<float> logits) const {
  if (plugin_->off()) return false;
  const std::scoped_lock lock(code_->calls());
  if (logits_.size() != logits.size()) logits_.resize(logits.size());
  std::copy(logits.begin(), logits.end(), logits_.data());
  const sy_scheme_in in = input_of(call, uint32_t(call.k));
  if (!guarded(PluginCall::kEdit, call,
               [&](CallContext& ctx) { return edit_.apply(code_->self(), &in, logits_.data(), &ctx); }))
    return false;
  if (!logits_.whole()) {
    plugin_->turn_off(fmt::format("{} wrote past the end of a buffer.", title_));
    plugin_->fault(fmt::format("{} wrote past the end of a buffer; it is off", title_));
    return false;
  }
  bool left = false;
  for (size_t e = 0; e < logits.size(); ++e) {
    const float made = logits_.data()[e];
    const bool muted = logits[e] == -INFINITY;
    if (std::isnan(made) || made == INFINITY || (muted && made != -INFINITY)) {
      plugin_->fault(fmt::format("{}: {}; the logits stay as they were", title_,
                                 muted ? "it woke a muted expert" : "a logit is not finite"));
      return false;
    }
    left = left || made != -INFINITY;
  }
  if (!left) {
    plugin_->fault(fmt::format("{}: it left no expert; the logits stay as they were", title_));
    return false;
  }
  std::copy_n(logits_.data(), logits.size(), logits.begin());
  return true;
}

}  // namespace switchyard
