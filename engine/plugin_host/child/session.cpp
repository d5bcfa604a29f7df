#include "engine/plugin_host/child/session.h"

#include <set>

#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/model/checkpoint.h"
#include "engine/plugin_host/child/remote.h"
#include "engine/plugin_host/environment.h"

namespace switchyard::plugin_child {
namespace {

Message ok() {
  return {};
}

std::vector<double> numbers(const nlohmann::json& list) {
  std::vector<double> out;
  for (const auto& one : list) out.push_back(one.get<double>());
  return out;
}

}  // namespace

Session::~Session() {
  for (const auto& [row, state] : states_) metric_.destroy(state);
}

void Session::run() {
  for (;;) {
    auto message = wire_.receive();
    if (!message) return;
    Result<Message> answered = fail(ErrorCode::kPlugin, "sent what is no question");
    try {
      answered = answer(*message);
    } catch (const std::exception& error) {
      answered = fail(ErrorCode::kPlugin, error.what());
    }
    Message out;
    if (answered)
      out = std::move(*answered);
    else
      out.head = {{"fail", answered.error().what}};
    if (!wire_.send(out)) return;
  }
}

Result<Message> Session::answer(Message& message) {
  const std::string op = message.text("op");
  if (op == "begin") return begin(message);
  if (!code_) return fail(ErrorCode::kPlugin, "nothing is open");
  if (op == "trial") return trial(message);
  if (op == "check") return check(message);
  if (op == "metric") return metric(message);
  if (op == "feed") return feed(message);
  if (op == "result") return result();
  if (op == "probe") return probe(message);
  if (op == "read") return read(message);
  if (op == "write") return write(message);
  if (op == "report") return report(message);
  return fail(ErrorCode::kPlugin, "does not know " + quote(op));
}

tl::unexpected<Error> Session::failed(const CallContext& ctx, const std::string& what) const {
  return fail(ErrorCode::kPlugin, ctx.message[0] ? printable(ctx.message, 400) : what + " without a reason");
}

Result<Message> Session::begin(const Message& message) {
  SY_CHECK(limit_process());
  const std::string library = message.text("library"), expected = message.text("sha256");
  if (!expected.empty()) {
    SY_TRY(const std::string found, sha256_of_file(library));
    if (found != expected) return fail(ErrorCode::kPlugin, "the library is not the one that is trusted");
  }
  settings_ = message.head.value("settings", nlohmann::json::object());
  name_ = message.text("name");
  PluginHooks hooks;
  hooks.log = [this](int level, const std::string& text) {
    Message line;
    line.head = {{"log", text}, {"level", std::max(0, level)}};
    (void)wire_.send(line);
  };
  hooks.setting = [this](const std::string& key, std::string& value) {
    const auto found = settings_.find(key);
    if (found == settings_.end()) return false;
    value = found->get<std::string>();
    return true;
  };
  hooks.progress = [this](double fraction) {
    Message line;
    line.head = {{"progress", fraction}};
    (void)wire_.send(line);
  };
  SY_TRY(code_, PluginCode::open(library, std::move(hooks), nullptr));
  SY_CHECK(forbid_files());
  Message out;
  out.head["changed"] = code_->changed();
  return out;
}

Result<Message> Session::trial(const Message& message) {
  for (const auto& one : message.head.at("schemes"))
    SY_CHECK(try_scheme(*code_, one.at("id"), numbers(one.at("parameters")), one.at("max_slots"), false));
  for (const auto& one : message.head.at("edits"))
    SY_CHECK(try_edit(*code_, one.at("id"), numbers(one.at("parameters")), false));
  return ok();
}

Result<Message> Session::check(const Message& message) {
  const std::string kind = message.text("kind"), id = message.text("id");
  const std::vector<double> parameters = numbers(message.head.value("parameters", nlohmann::json::array()));
  if (kind == "scheme")
    SY_CHECK(try_scheme(*code_, id, parameters, message.head.value("max_slots", 0), true));
  else if (kind == "edit")
    SY_CHECK(try_edit(*code_, id, parameters, true));
  else if (kind == "metric")
    SY_CHECK(try_metric(*code_, id));
  else if (kind == "reader")
    SY_CHECK(try_reader(*code_, id));
  else if (kind == "writer")
    SY_CHECK(try_writer(*code_, id));
  else if (kind == "view")
    SY_CHECK(try_view(*code_, id));
  return ok();
}

Result<Message> Session::metric(Message& message) {
  SY_TRY(metric_, code_->metric(name_));
  for (const auto& layer : message.head.at("layers")) layers_.push_back(layer.get<uint32_t>());
  shape_ = {sizeof(sy_trace_shape), message.head.at("rows"),   message.head.at("experts"),
            message.head.at("k"),   message.head.at("tokens"), message.head.at("sequences"),
            layers_.data()};
  Message out;
  auto& tables = out.head["tables"] = nlohmann::json::array();
  for (uint32_t i = 0; i < metric_.table_count; ++i) {
    const sy_table& table = table_of(metric_, i);
    nlohmann::json columns = nlohmann::json::array();
    std::set<std::string> names;
    for (uint32_t c = 0; c < table.column_count; ++c) {
      const sy_column& column = column_of(table, c);
      const std::string name = column.name ? printable(column.name, 64) : "";
      if (name.empty() || !names.insert(name).second)
        return fail(ErrorCode::kPlugin, "the table " + quote(table.name) + " has a column without a name of its own");
      columns.push_back({name, column.unit ? printable(column.unit, 64) : ""});
    }
    tables.push_back({{"name", printable(table.name, 64)}, {"columns", columns}});
  }
  return out;
}

Result<void*> Session::state_of(uint32_t row) {
  void*& state = states_[row];
  if (state) return state;
  CallContext ctx;
  code_->call(PluginCall::kMetric, ctx, [&] {
    state = metric_.create(code_->self(), &shape_, &ctx);
    return 0;
  });
  if (!state) {
    states_.erase(row);
    return failed(ctx, "create() failed");
  }
  return state;
}

Result<Message> Session::feed(Message& message) {
  const auto n = size_t(message.number("tokens")), k = size_t(message.number("k")),
             experts = size_t(message.number("experts"));
  std::vector<int32_t> ids, token_ids;
  std::vector<uint32_t> position, sequence;
  std::vector<float> weight, logits, scalars[4];
  std::vector<uint8_t> mask;
  bool whole = message.take(n * k, ids) && message.take(n, position) && message.take(n, sequence);
  for (const char letter : message.text("arrays")) {
    if (letter == 'w')
      whole = whole && message.take(n * k, weight);
    else if (letter == 'l')
      whole = whole && message.take(n * experts, logits);
    else if (const size_t at = std::string_view("etms").find(letter); at != std::string_view::npos)
      whole = whole && message.take(n, scalars[at]);
    else if (letter == 'i')
      whole = whole && message.take(n, token_ids);
    else if (letter == 'k')
      whole = whole && message.take(n, mask);
  }
  if (!whole) return fail(ErrorCode::kPlugin, "got a block that is cut off");
  const auto held = []<class T>(const std::vector<T>& values) { return values.empty() ? nullptr : values.data(); };
  const sy_block block{sizeof(sy_block),
                       uint32_t(message.number("row")),
                       uint32_t(message.number("layer")),
                       uint32_t(n),
                       uint32_t(experts),
                       uint32_t(k),
                       message.number("first"),
                       ids.data(),
                       held(weight),
                       held(logits),
                       held(scalars[0]),
                       held(scalars[1]),
                       held(scalars[2]),
                       held(scalars[3]),
                       held(token_ids),
                       position.data(),
                       sequence.data(),
                       held(mask)};
  SY_TRY(void* const state, state_of(block.row));
  CallContext ctx;
  if (!code_->call(PluginCall::kMetric, ctx, [&] { return metric_.feed(state, &block, &ctx); }))
    return failed(ctx, "feed() failed");
  return ok();
}

Result<Message> Session::result() {
  SY_TRY(void* const whole, state_of(states_.empty() ? 0 : states_.begin()->first));
  CallContext ctx;
  for (const auto& [row, state] : states_)
    if (state != whole &&
        !code_->call(PluginCall::kMetric, ctx, [&, part = state] { return metric_.merge(whole, part, &ctx); }))
      return failed(ctx, "merge() failed");
  Message out;
  out.head["rows"] = nlohmann::json::array();
  for (uint32_t table = 0; table < metric_.table_count; ++table) {
    uint64_t rows = 0;
    if (!code_->call(PluginCall::kMetric, ctx, [&] {
          rows = metric_.rows(whole, table);
          return 0;
        }))
      return failed(ctx, "rows() failed");
    const uint64_t columns = table_of(metric_, table).column_count;
    if (rows > 1'000'000 || rows * columns > (16 << 20))
      return fail(ErrorCode::kPlugin, fmt::format("gives a table of {} rows", rows));
    std::vector<double> cells(rows * columns + 8, 0x1.5a5a5p+300);  // the last eight: written past the end
    if (!code_->call(PluginCall::kMetric, ctx, [&] { return metric_.result(whole, table, cells.data(), &ctx); }))
      return failed(ctx, "result() failed");
    for (size_t i = rows * columns; i < cells.size(); ++i)
      if (cells[i] != 0x1.5a5a5p+300) return fail(ErrorCode::kPlugin, "result() wrote past the end of its table");
    out.head["rows"].push_back(rows);
    out.put(std::span<const double>(cells).first(rows * columns));
  }
  return out;
}

Result<Message> Session::probe(Message& message) {
  SY_TRY(const sy_reader reader, code_->reader(name_));
  int sure = 0;
  CallContext ctx;
  code_->call(PluginCall::kReader, ctx, [&] {
    sure = reader.probe(code_->self(), message.text("file").c_str(), message.body.data(), message.body.size());
    return 0;
  });
  Message out;
  out.head["sure"] = uint64_t(std::clamp(sure, 0, 100));
  return out;
}

Result<Message> Session::read(const Message& message) {
  SY_TRY(const sy_reader reader, code_->reader(name_));
  const RemoteSource source = source_over(wire_, message.head.at("files"));
  const RemoteSink sink = sink_over(wire_);
  CallContext ctx;
  if (!code_->call(PluginCall::kReader, ctx,
                   [&] { return reader.read(code_->self(), &source.table, &sink.table, &ctx); }))
    return failed(ctx, "read() failed");
  Message out;
  out.head["done"] = true;
  return out;
}

Result<Message> Session::write(const Message& message) {
  SY_TRY(const sy_writer writer, code_->writer(name_));
  const RemoteTrace trace = trace_over(wire_, message.head);
  const RemoteOutput output = output_over(wire_);
  CallContext ctx;
  if (!code_->call(PluginCall::kWriter, ctx,
                   [&] { return writer.write(code_->self(), &trace.table, &output.table, &ctx); }))
    return failed(ctx, "write() failed");
  Message out;
  out.head["done"] = true;
  return out;
}

Result<Message> Session::report(const Message& message) {
  SY_TRY(const sy_report_section section, code_->report_section(name_));
  const std::vector<double> parameters = numbers(message.head.at("parameters"));
  const RemoteTrace trace = trace_over(wire_, message.head);
  const RemoteReport to = report_over(wire_);
  const sy_report_in in{sizeof(sy_report_in), uint32_t(parameters.size()), parameters.data(), &trace.table};
  const ProcessEnvironment before = ProcessEnvironment::now();
  CallContext ctx;
  const bool done =
      code_->call(PluginCall::kReport, ctx, [&] { return section.write(code_->self(), &in, &to.table, &ctx); });
  Message out;
  out.head["changed"] = before.restore();
  if (!to.wrong.empty()) return fail(ErrorCode::kPlugin, to.wrong);
  if (!done) return failed(ctx, "write() failed");
  out.head["done"] = true;
  return out;
}

}  // namespace switchyard::plugin_child
