#include "engine/plugin_host/code.h"

#include <dlfcn.h>

#include <cstddef>
#include <utility>

#include <fmt/format.h>

#include "engine/base/philox.h"
#include "engine/base/text.h"
#include "engine/plugin_host/environment.h"

namespace switchyard {
namespace {

constexpr uint32_t kMostStruct = 64 << 10;  // a larger size is nonsense
constexpr size_t kMostSource = 262144;  // of a scheme for a device, as plugin.h says

// Up to and with this field a struct must reach.
#define SY_LEAST(type, field) (offsetof(type, field) + sizeof(type::field))

const PluginHooks* hooks_of(void* ctx) {
  return ctx ? static_cast<CallContext*>(ctx)->hooks : nullptr;
}

}  // namespace

void CallContext::say(const char* text) {
  if (!text) return;
  const size_t size = strnlen(text, sizeof message - 1);
  std::memcpy(message, text, size);
  message[size] = 0;
}

void plugin_random(uint64_t seed, uint32_t layer, uint64_t token, uint32_t n, float* out) {
  for (uint32_t i = 0; i < n; i += 4) {
    const auto words = philox4x32({uint32_t(token), uint32_t(token >> 32), layer, 0xC0000000u | i / 4},
                                  {uint32_t(seed), uint32_t(seed >> 32)});
    for (uint32_t j = 0; j < 4 && i + j < n; ++j)
      out[i + j] = std::min(static_cast<float>(unit_interval(words[j])), 0.99999994f);
  }
}

PluginCode::PluginCode(std::filesystem::path library, PluginHooks hooks, Breadcrumbs::Trail* trail)
    : library_(std::move(library)), hooks_(std::move(hooks)), trail_(trail), answers_(std::make_unique<Answers>()) {
  answers_->code = this;
  sy_host& host = answers_->table;
  host = {};
  host.struct_size = sizeof host;
  host.core_contract = SY_CORE_CONTRACT;
  host.view_contract = SY_VIEW_CONTRACT;
  host.log = [](const sy_host* asked, int32_t level, const char* text) {
    const auto* answers = reinterpret_cast<const Answers*>(asked);
    if (text && answers->code->hooks_.log) answers->code->hooks_.log(level, printable(text, 1000));
  };
  host.fail = [](void* ctx, const char* text) {
    if (ctx) static_cast<CallContext*>(ctx)->say(text);
  };
  host.setting = [](const sy_host* asked, const char* key, char* buffer, uint64_t size) -> int64_t {
    const auto* answers = reinterpret_cast<const Answers*>(asked);
    std::string value;
    if (!key || !answers->code->hooks_.setting || !answers->code->hooks_.setting(key, value)) return -1;
    if (buffer && size > 0) {
      const size_t fits = std::min<size_t>(value.size(), size - 1);
      std::memcpy(buffer, value.data(), fits);
      buffer[fits] = 0;
    }
    return int64_t(value.size());
  };
  host.random = plugin_random;
  host.cancelled = [](void* ctx) -> int32_t {
    const PluginHooks* asked = hooks_of(ctx);
    return asked && asked->cancelled && asked->cancelled();
  };
  host.progress = [](void* ctx, double fraction) {
    const PluginHooks* asked = hooks_of(ctx);
    if (asked && asked->progress) asked->progress(fraction);
  };
}

PluginCode::~PluginCode() {
  close();
}

void PluginCode::close() {
  const std::scoped_lock lock(calls_);
  CallContext ctx;
  if (std::exchange(begun_, false) && table_.shutdown)
    call(PluginCall::kShutdown, ctx, [&] {
      table_.shutdown(self_);
      return 0;
    });
  trail_ = nullptr;
}

Result<std::shared_ptr<PluginCode>> PluginCode::open(const std::filesystem::path& library, PluginHooks hooks,
                                                     Breadcrumbs::Trail* trail) {
  std::shared_ptr<PluginCode> code(new PluginCode(library, std::move(hooks), trail));
  const auto refuse = [&](std::string what, std::string hint = {}) {
    return fail(ErrorCode::kPlugin, std::move(what), printable(library.string(), 400), std::move(hint));
  };
  const ProcessEnvironment before = ProcessEnvironment::now();
  void* module = nullptr;
  sy_entry entry = nullptr;
  const sy_plugin* theirs = nullptr;
  CallContext ctx;
  std::string trouble;
  const bool loaded = code->call(PluginCall::kLoad, ctx, [&] {
    module = ::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!module) {
      const char* why = ::dlerror();
      std::string text = why ? why : "unknown";
      if (const std::string path = library.string() + ": "; text.starts_with(path)) text.erase(0, path.size());
      trouble = printable(text, 600);
      return 1;
    }
    entry = reinterpret_cast<sy_entry>(::dlsym(module, "switchyard_plugin"));
    if (entry) theirs = entry();
    return 0;
  });
  if (!trouble.empty()) return refuse("cannot be opened: " + trouble + ".", "ldd shows what it needs.");
  if (!loaded) return refuse(std::string("threw while it was opened: ") + printable(ctx.message) + ".");
  if (!entry)
    return refuse("has no symbol switchyard_plugin.",
                  "Is it built with SWITCHYARD_PLUGIN() or an extern \"C\" function of that name?");
  if (!theirs) return refuse("gave no table.");
  if (theirs->struct_size < SY_LEAST(sy_plugin, shutdown) || theirs->struct_size > kMostStruct)
    return refuse(
        fmt::format("has a table of {} bytes, needs at least {}.", theirs->struct_size, SY_LEAST(sy_plugin, shutdown)));
  code->table_ = known_part(theirs);
  const sy_plugin& table = code->table_;
  if (table.magic != SY_MAGIC)
    return refuse(fmt::format("begins with {:#x}, a plugin with {:#x}.", table.magic, SY_MAGIC));
  if (table.compiler_tag != SY_COMPILER_TAG)
    return refuse(
        fmt::format("was built for another kind of machine ({:#x}, here {:#x}).", table.compiler_tag, SY_COMPILER_TAG));
  if (table.core_contract != SY_CORE_CONTRACT)
    return refuse(fmt::format("was built for contract {}, this program has {}.", table.core_contract, SY_CORE_CONTRACT),
                  "Build it anew with the headers of this program.");
  if (!table.init) return refuse("has no init().");
  SY_CHECK(code->begin());
  code->changed_ = before.restore();
  return code;
}

Result<void> PluginCode::begin() {
  CallContext ctx;
  if (!call(PluginCall::kInit, ctx, [&] { return table_.init(&answers_->table, &self_, &ctx); }))
    return fail(
        ErrorCode::kPlugin,
        std::string("init() failed: ") + (ctx.message[0] ? printable(ctx.message, 400) : "without a reason") + ".",
        printable(library_.string(), 400));
  begun_ = true;
  return {};
}

template <class T>
Result<T> PluginCode::find(const T* (*from)(void*, const char*), const std::string& id, size_t least,
                           const char* kind) {
  const std::scoped_lock lock(calls_);
  const T* theirs = nullptr;
  CallContext ctx;
  const bool found = from && call(PluginCall::kFind, ctx, [&] {
                       theirs = from(self_, id.c_str());
                       return theirs == nullptr;
                     });
  const std::string where = printable(library_.string(), 400);
  if (!found)
    return fail(ErrorCode::kPlugin,
                fmt::format("its manifest names the {} {}, its library does not know it{}.", kind, quote(id),
                            ctx.message[0] ? ": " + printable(ctx.message) : ""),
                where);
  if (theirs->struct_size < least || theirs->struct_size > kMostStruct)
    return fail(ErrorCode::kPlugin,
                fmt::format("gives a table of {} bytes for the {} {}, needs at least {}.", theirs->struct_size, kind,
                            quote(id), least),
                where);
  return known_part(theirs);
}

Result<sy_scheme> PluginCode::scheme(const std::string& id) {
  SY_TRY(const sy_scheme out, find(table_.scheme, id, SY_LEAST(sy_scheme, route), "scheme"));
  if (!out.route)
    return fail(ErrorCode::kPlugin, "the scheme " + quote(id) + " has no route().", printable(library_.string(), 400));
  if (out.state_bytes % 4 != 0 || out.state_bytes > 4096)
    return fail(ErrorCode::kPlugin,
                fmt::format("the scheme {} asks for {} bytes of state, needs a multiple of 4 up to 4096.", quote(id),
                            out.state_bytes),
                printable(library_.string(), 400));
  if (out.device_source && strnlen(out.device_source, kMostSource + 1) > kMostSource)
    return fail(ErrorCode::kPlugin,
                fmt::format("the scheme {} has a device source of more than {} bytes.", quote(id), kMostSource),
                printable(library_.string(), 400));
  return out;
}

Result<sy_edit> PluginCode::edit(const std::string& id) {
  SY_TRY(const sy_edit out, find(table_.edit, id, SY_LEAST(sy_edit, apply), "logit edit"));
  if (!out.apply)
    return fail(ErrorCode::kPlugin, "the logit edit " + quote(id) + " has no apply().",
                printable(library_.string(), 400));
  return out;
}

Result<sy_metric> PluginCode::metric(const std::string& id) {
  SY_TRY(const sy_metric out, find(table_.metric, id, SY_LEAST(sy_metric, destroy), "metric"));
  const auto refuse = [&](std::string what) {
    return fail(ErrorCode::kPlugin, "the metric " + quote(id) + " " + what + ".", printable(library_.string(), 400));
  };
  if (!out.create || !out.feed || !out.merge || !out.rows || !out.result || !out.destroy)
    return refuse("lacks a function");
  if (out.table_count == 0 || out.table_count > 16 || !out.tables)
    return refuse(fmt::format("declares {} tables, needs 1 to 16", out.table_count));
  const auto sound = [](uint32_t size, size_t least) { return size >= least && size <= kMostStruct; };
  for (uint32_t i = 0; i < out.table_count; ++i) {
    if (!sound(out.tables->struct_size, sizeof(sy_table)))
      return refuse(fmt::format("declares tables of {} bytes", out.tables->struct_size));
    const sy_table& table = table_of(out, i);
    if (table.columns && table.column_count > 0 && !sound(table.columns->struct_size, sizeof(sy_column)))
      return refuse(fmt::format("declares columns of {} bytes", table.columns->struct_size));
    if (!table.name || !table.columns || table.column_count == 0 || table.column_count > 64)
      return refuse(
          fmt::format("declares a table without a name, or of {} columns; needs 1 to 64", table.column_count));
  }
  return out;
}

Result<sy_view> PluginCode::view(const std::string& id) {
  if (table_.view_contract != SY_VIEW_CONTRACT)
    return fail(
        ErrorCode::kPlugin,
        fmt::format("was built for view contract {}, this program has {}.", table_.view_contract, SY_VIEW_CONTRACT),
        printable(library_.string(), 400));
  SY_TRY(const sy_view out, find(table_.view, id, SY_LEAST(sy_view, table), "view"));
  if (!out.draw || !out.table)
    return fail(ErrorCode::kPlugin, "the view " + quote(id) + " lacks draw() or table().",
                printable(library_.string(), 400));
  return out;
}

Result<sy_reader> PluginCode::reader(const std::string& id) {
  SY_TRY(const sy_reader out, find(table_.reader, id, SY_LEAST(sy_reader, read), "importer"));
  if (!out.probe || !out.read)
    return fail(ErrorCode::kPlugin, "the importer " + quote(id) + " lacks probe() or read().",
                printable(library_.string(), 400));
  return out;
}

Result<sy_writer> PluginCode::writer(const std::string& id) {
  SY_TRY(const sy_writer out, find(table_.writer, id, SY_LEAST(sy_writer, write), "exporter"));
  if (!out.write)
    return fail(ErrorCode::kPlugin, "the exporter " + quote(id) + " has no write().",
                printable(library_.string(), 400));
  return out;
}

Result<sy_report_section> PluginCode::report_section(const std::string& id) {
  SY_TRY(const sy_report_section out,
         find(table_.report_section, id, SY_LEAST(sy_report_section, write), "report section"));
  if (!out.write)
    return fail(ErrorCode::kPlugin, "the report section " + quote(id) + " has no write().",
                printable(library_.string(), 400));
  return out;
}

}  // namespace switchyard
