local answer = ops[OP]()
tell()
return answer
