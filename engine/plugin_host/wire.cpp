#include "engine/plugin_host/wire.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace switchyard {
namespace {

tl::unexpected<Error> gone() {
  return fail(ErrorCode::kPlugin, "ended in the middle of its work");
}

}  // namespace

uint64_t Message::number(const char* key) const {
  if (!has(key) || !head[key].is_number_unsigned()) return 0;
  return head[key].get<uint64_t>();
}

std::string Message::text(const char* key) const {
  if (!has(key) || !head[key].is_string()) return {};
  return head[key].get<std::string>();
}

Result<void> Wire::wait(short what, int milliseconds) const {
  pollfd one{descriptor_.get(), what, 0};
  for (;;) {
    const int ready = ::poll(&one, 1, milliseconds);
    if (ready > 0) return {};
    if (ready == 0) return fail(ErrorCode::kPlugin, "stands still");
    if (errno != EINTR) return gone();
  }
}

Result<void> Wire::send(const Message& message, int milliseconds) {
  nlohmann::json head = message.head;
  head["bytes"] = message.body.size();
  const std::string line = head.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  for (const std::string_view part : {std::string_view(line), std::string_view(message.body)}) {
    for (size_t at = 0; at < part.size();) {
      SY_CHECK(wait(POLLOUT, milliseconds));
      const ssize_t sent = ::send(descriptor_.get(), part.data() + at, part.size() - at, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent > 0)
        at += size_t(sent);
      else if (sent < 0 && errno != EINTR && errno != EAGAIN)
        return gone();
    }
  }
  return {};
}

Result<Message> Wire::receive(int milliseconds) {
  for (;;) {
    if (const size_t end = headed_ ? ahead_.npos : ahead_.find('\n'); end != ahead_.npos) {
      pending_ = {};
      pending_.head = nlohmann::json::parse(ahead_.begin(), ahead_.begin() + ptrdiff_t(end), nullptr, false);
      ahead_.erase(0, end + 1);
      if (!pending_.head.is_object()) return fail(ErrorCode::kPlugin, "sends what is no message");
      bytes_ = pending_.number("bytes");
      if (bytes_ > kMostBody) return fail(ErrorCode::kPlugin, "sends " + std::to_string(bytes_) + " bytes at once");
      headed_ = true;
    }
    if (headed_ && ahead_.size() >= bytes_) {
      pending_.body = ahead_.substr(0, bytes_);
      ahead_.erase(0, bytes_);
      headed_ = false;
      return std::move(pending_);
    }
    if (!headed_ && ahead_.size() > kMostLine) return fail(ErrorCode::kPlugin, "sends what is no message");
    SY_CHECK(wait(POLLIN, milliseconds));
    const size_t old = ahead_.size(),
                 room = std::max<size_t>(64 << 10, headed_ ? std::min<size_t>(bytes_, 4 << 20) : 0);
    ahead_.resize(old + room);
    const ssize_t got = ::recv(descriptor_.get(), ahead_.data() + old, room, MSG_DONTWAIT);
    ahead_.resize(old + size_t(std::max<ssize_t>(got, 0)));
    if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN)) return gone();
  }
}

}  // namespace switchyard
