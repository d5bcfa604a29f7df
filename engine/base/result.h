// Errors as values: what failed, where, and what to do next.
// Used by every room; no thread owns it. Exceptions do not cross rooms.
#pragma once

#include <string>
#include <utility>

#include <tl/expected.hpp>

namespace switchyard {

// The number is the exit code of the command line (design: interface.md, section 12).
enum class ErrorCode : int {
  kInternal = 1,     // a bug of ours
  kUsage = 2,        // unknown option, or numbers that cannot fit together
  kNotFound = 3,     // input not found or unreadable
  kMalformed = 4,    // input malformed, or refused as unsafe
  kOutput = 5,       // output could not be written
  kMemory = 6,       // out of host or device memory
  kDevice = 7,       // device missing, driver error, context lost
  kPlugin = 8,       // a plugin failed
  kCheckFailed = 9,  // finished, but the requested check failed
  kPartial = 10,     // a partial result was saved
  kCancelled = 130,  // stopped by the user
};

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string what;   // what was found and what was needed, one sentence
  std::string where;  // file, tensor, key, offset or token; may be empty
  std::string hint;   // the next step; may be empty

  // "where: what hint", the one printable form.
  std::string message() const {
    std::string text = where.empty() ? what : where + ": " + what;
    if (!hint.empty()) text += (text.empty() ? "" : " ") + hint;
    return text;
  }
};

template <class T>
using Result = tl::expected<T, Error>;

inline tl::unexpected<Error> fail(ErrorCode code, std::string what, std::string where = {}, std::string hint = {}) {
  return tl::unexpected<Error>(Error{code, std::move(what), std::move(where), std::move(hint)});
}

}  // namespace switchyard

// SY_TRY(auto x, make_x());  returns the error of make_x(), or binds its value.
// SY_CHECK(do_it());         returns the error of do_it().
#define SY_CONCAT_INNER(a, b) a##b
#define SY_CONCAT(a, b) SY_CONCAT_INNER(a, b)
#define SY_TRY(declaration, expression)                                                   \
  auto SY_CONCAT(sy_result_, __LINE__) = (expression);                                    \
  if (!SY_CONCAT(sy_result_, __LINE__))                                                   \
    return tl::unexpected<::switchyard::Error>(std::move(SY_CONCAT(sy_result_, __LINE__)).error()); \
  declaration = std::move(*SY_CONCAT(sy_result_, __LINE__))
#define SY_CHECK(expression)                                                              \
  do {                                                                                    \
    auto sy_check_result = (expression);                                                  \
    if (!sy_check_result) return tl::unexpected<::switchyard::Error>(std::move(sy_check_result).error()); \
  } while (false)
